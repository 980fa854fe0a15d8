package store

import "github.com/fastn-stack/fastnd/internal/identity"

// index has a set for each key, and none that is empty.
type index map[identity.ID]set[identity.ID]

// put has v among those of key, or not.
func (x index) put(key, v identity.ID, in bool) {
	switch {
	case !in:
		if delete(x[key], v); len(x[key]) == 0 {
			delete(x, key)
		}
	case x[key] == nil:
		x[key] = set[identity.ID]{v: {}}
	default:
		x[key][v] = struct{}{}
	}
}

// judge follows a change of whether owner has id as a contact, or has blocked it.
func (st *state) judge(owner, id identity.ID) {
	o := st.of(owner)
	_, blocked := o.blocks[id]
	st.welcome.put(id, owner, o.contacts[id] != nil && !blocked)
	for node := range st.homes[id] {
		st.judgeHome(node, id)
	}
}

// judgeHome follows a change of whether id lives at node, or is welcome to anybody.
func (st *state) judgeHome(node, id identity.ID) {
	lives := st.nodeOf[node][id] > 0
	st.homes.put(id, node, lives)
	st.trusted.put(node, id, lives && len(st.welcome[id]) > 0)
}

// Trusted tells whether id is a contact of anybody here who has not blocked it.
func (s *Store) Trusted(id identity.ID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.state.welcome[id]) > 0
}

// NodeTrusted tells whether one who is Trusted is known to live at node.
func (s *Store) NodeTrusted(node identity.ID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.state.trusted[node]) > 0
}
