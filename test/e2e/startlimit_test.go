package e2e

import (
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/test/e2e/nspawn"
)

// givenUp goes beyond what systemd starts in a row: clients are told how the daemon
// comes back, and that brings it back at once.
func givenUp(t *testing.T, m *nspawn.Machine) {
	defer m.Run("systemctl", "start", "fastn.socket", "fastnd.service")
	defer m.Run("systemctl", "reset-failed", "fastn.socket", "fastnd.service")
	again(m)
	burst := m.Must("systemctl", "show", "--property=StartLimitBurst", "--value", "fastnd.service")
	m.Must("sh", "-c", "for i in $(seq "+burst+"); do systemctl restart fastnd.service || exit; done")
	m.Must("kill", "-KILL", mainPID(m))
	m.Eventually(soon, "systemd to give up", func() bool {
		return m.Run("systemctl", "is-failed", "--quiet", "fastn.socket").Code == 0
	})
	call := []string{"fastn", "call", "self", "Echo", `{"message":"x"}`}
	r := m.RunAs("alice", call...)
	_, hint, _ := strings.Cut(r.Err, "hint: an administrator can start it with \"")
	command, _, told := strings.Cut(hint, `"`)
	if r.Code != 3 || !told {
		t.Fatalf("a client of a daemon that is not started any more: %v", r)
	}
	m.Must(strings.Fields(command)...)
	m.MustAs("alice", call...)
	stillActive(t, m)
}
