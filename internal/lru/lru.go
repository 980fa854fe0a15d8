// Package lru is a map that forgets: for what is remembered of strangers, of
// whom there is no end.
package lru

import "container/list"

// Map keeps the most recently used of its keys. It is not safe for concurrent use.
type Map[K comparable, V any] struct {
	most  int
	order *list.List // of item, most recent first
	items map[K]*list.Element
}

type item[K comparable, V any] struct {
	key   K
	value V
}

// New makes a Map of at most most keys, which is above 0.
func New[K comparable, V any](most int) *Map[K, V] {
	return &Map[K, V]{most: most, order: list.New(), items: make(map[K]*list.Element)}
}

// Len tells how many keys there are.
func (m *Map[K, V]) Len() int { return len(m.items) }

// Get gives a key's value, which is a use of it; the zero V and false if there
// is none.
func (m *Map[K, V]) Get(key K) (value V, ok bool) {
	if e, ok := m.items[key]; ok {
		m.order.MoveToFront(e)
	}
	return m.Peek(key)
}

// Peek is Get that is no use.
func (m *Map[K, V]) Peek(key K) (value V, ok bool) {
	if e, ok := m.items[key]; ok {
		return e.Value.(*item[K, V]).value, true
	}
	return value, false
}

// Delete forgets a key, if it is there.
func (m *Map[K, V]) Delete(key K) {
	if e, ok := m.items[key]; ok {
		m.order.Remove(e)
		delete(m.items, key)
	}
}

// Put sets a key's value, which is a use of it. The key that was not used for
// the longest time makes room.
func (m *Map[K, V]) Put(key K, value V) {
	if e, ok := m.items[key]; ok {
		e.Value.(*item[K, V]).value = value
		m.order.MoveToFront(e)
		return
	}
	if len(m.items) >= m.most {
		delete(m.items, m.order.Remove(m.order.Back()).(*item[K, V]).key)
	}
	m.items[key] = m.order.PushFront(&item[K, V]{key, value})
}
