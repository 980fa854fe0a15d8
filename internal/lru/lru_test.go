package lru

import "testing"

func TestTheLeastRecentlyUsedIsForgotten(t *testing.T) {
	m := New[string, int](3)
	for i, key := range []string{"a", "b", "c"} {
		m.Put(key, i)
	}
	m.Get("a")
	m.Put("b", 7)
	m.Peek("c") // is no use
	m.Put("d", 3)
	for key, want := range map[string]int{"a": 0, "b": 7, "d": 3} {
		if got, ok := m.Peek(key); got != want || !ok {
			t.Errorf("%s is %d, %v", key, got, ok)
		}
	}
	for what, get := range map[string]func(string) (int, bool){"Peek": m.Peek, "Get": m.Get} {
		if got, ok := get("c"); got != 0 || ok {
			t.Errorf("%s gives %d, %v for what is forgotten", what, got, ok)
		}
	}
	if m.Len() != 3 || m.order.Len() != 3 {
		t.Errorf("%d keys, %d in order", m.Len(), m.order.Len())
	}
}
