package store

import "context"

// Meta gives what the node itself keeps under key, such as the port it took;
// ok is false if that is nothing.
func (s *Store) Meta(key string) (value string, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	value, ok = s.state.meta[key]
	return value, ok
}

// SetMeta keeps value under key.
func (s *Store) SetMeta(ctx context.Context, key, value string) error {
	return s.write(ctx, func(st *state, p *plan) error {
		if old, ok := st.meta[key]; ok && old == value {
			return nil
		}
		p.exec("INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value)
		p.then(func(st *state) { st.meta[key] = value })
		return nil
	})
}
