package store

import (
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// dump plans to make the disk what the memory is, whatever is on it.
func (st *state) dump(p *plan, now time.Time) {
	for _, t := range tables() {
		p.exec("DELETE FROM " + t)
	}
	for _, i := range st.identities {
		p.exec("INSERT INTO identities (id, uid, name, online, added) VALUES (?, ?, ?, ?, ?)", i.ID, i.UID, i.Name, i.Online, i.Added)
	}
	for key, value := range st.meta {
		p.exec("INSERT INTO meta (key, value) VALUES (?, ?)", key, value)
	}
	for id, nodes := range st.delegations {
		for node, d := range nodes {
			p.exec("INSERT INTO delegations (identity, node, issued, expires, raw) VALUES (?, ?, ?, ?, ?)", id, node, d.Issued, d.Expires, d.Raw)
		}
	}
	for node, addrs := range st.addresses {
		for i, a := range addrs {
			p.exec("INSERT INTO addresses (node, position, address) VALUES (?, ?, ?)", node, i, a)
		}
	}
	for owner, o := range st.owners {
		p.dumpAccess(owner, o)
		for id, nodes := range o.seen {
			for node := range nodes {
				p.exec("INSERT INTO seen (owner, id, node) VALUES (?, ?, ?)", owner, id, node)
			}
		}
		for id, hints := range o.hints {
			for i, h := range hints { // their times only say in which order they came
				p.exec("INSERT INTO hints (owner, id, node, address, added) VALUES (?, ?, ?, ?, ?)",
					owner, id, h.node, h.address, now.Add(time.Duration(i)*time.Microsecond))
			}
		}
	}
}

func (p *plan) dumpAccess(owner identity.ID, o *owned) {
	for _, c := range o.contacts {
		p.exec("INSERT INTO contacts (owner, id, name, added) VALUES (?, ?, ?, ?)", owner, c.ID, c.Name, c.Added)
	}
	for id, added := range o.blocks {
		p.exec("INSERT INTO blocks (owner, id, added) VALUES (?, ?, ?)", owner, id, added)
	}
	for k, added := range o.grants {
		p.exec("INSERT INTO grants (owner, who, protocol, instance, added) VALUES (?, ?, ?, ?, ?)", owner, k.who, k.protocol, k.instance, added)
	}
	for hash, inv := range o.invites {
		var usedBy any // NULL unless it was used
		if !inv.usedBy.IsZero() {
			usedBy = inv.usedBy
		}
		p.exec("INSERT INTO invites (hash, owner, name, expires, used_by, void) VALUES (?, ?, ?, ?, ?, ?)",
			hash[:], owner, inv.name, inv.expires, usedBy, inv.void)
	}
}
