package store

import (
	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

// Budgets of one identity. They are far above what a person has, keep a list of
// them within one answer line, and bound what
// one user costs the others: everything is held in memory, and there is no
// setting for them. Tickets have their own, see maxInvites.
const (
	maxContacts = 2_000
	maxGrants   = 2_000
	maxBlocks   = 2_000
)

// overBudget is for the user of owner, who has all of what.
func (st *state) overBudget(owner identity.ID, limit int, what string) *api.Error {
	whose := owner.Short()
	if i, ok := st.identities[owner]; ok {
		whose = i.Name
	}
	return api.Errorf(api.CodeOverBudget, "over budget: your identity %s has %d of %d %s", whose, limit, limit, what)
}

// errContactsFull is what a peer is told who would be a contact too many: whose
// side it is, and nothing of that user's.
func errContactsFull() *api.Error {
	return api.Errorf(api.CodeOverBudget, "over budget: contacts (%d) on the peer's side", maxContacts).
		WithHint("ask the peer to remove contacts that it does not need")
}
