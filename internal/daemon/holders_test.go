package daemon

import "testing"

func TestHolders(t *testing.T) {
	var h holders
	if got := h.most(7); got != "" {
		t.Errorf("nobody holds any, but %q", got)
	}
	var leave []func()
	for _, pid := range []int32{11, 12, 12, 13, 13, 13, 14, 15, 0} {
		leave = append(leave, h.enter(7, pid))
	}
	leave = append(leave, h.enter(8, 99))
	if got, want := h.most(7), "pid 13 (3), pid 12 (2), pid 11 (1), 2 more"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, l := range leave {
		l()
	}
	if got := h.most(7); got != "" || len(h.byUID) > 0 {
		t.Errorf("all have left, but %q, %v", got, h.byUID)
	}
}
