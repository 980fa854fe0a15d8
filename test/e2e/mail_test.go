package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/test/e2e/nspawn"
)

// TestMail has messages outlive what happens to machines.
func TestMail(t *testing.T) { onEach(t, testMail) }

func testMail(t *testing.T, s suite) {
	north, south := boot(t, s, "north"), boot(t, s, "south")
	nspawn.Link(north, south, northAddress, southAddress)
	for _, m := range []*nspawn.Machine{north, south} {
		install(t, m)
		enable(m)
	}
	addUser(north, "alice", "fastn", "fastn-admin")
	addUser(south, "bob", "fastn")
	ticket := north.MustAs("alice", "fastn", "--quiet", "invite", "--for", "bob")
	if r := south.RunInput("bob", ticket+"\n", "fastn", "contact", "add", "alice", "-"); r.Code != 0 {
		t.Fatalf("%v", r)
	}
	delivered(south, "bob", "alice", "kept")
	var before replaced
	step := func(name string, f func(t *testing.T, north, south *nspawn.Machine)) {
		t.Run(name, func(t *testing.T) { f(t, north.For(t), south.For(t)) })
	}
	step("mail to a machine that is off waits over a reboot of ours, and arrives when it is on", func(t *testing.T, north, south *nspawn.Machine) {
		before = mailToOneThatIsOff(t, north, south)
	})
	step("both machines are upgraded while mail is sent: all arrives once", func(t *testing.T, north, south *nspawn.Machine) {
		mailThroughUpgrades(t, north, south, nextPackage(t, s))
	})
	step("an empty machine takes the place of one from its backup", func(t *testing.T, north, south *nspawn.Machine) {
		replace(t, s, north, south, before)
	})
}

const northAddress, southAddress = "2.1.1.1/24", "2.1.1.2/24"

// mailToOneThatIsOff: bob's machine is off, alice's is started anew. The backup
// that it returns is from when the mail was waiting.
func mailToOneThatIsOff(t *testing.T, north, south *nspawn.Machine) replaced {
	had := len(texts(t, south, "bob"))
	south.PowerOff()
	sent := []string{"while you are off", "and one more"}
	for _, text := range sent {
		north.MustAs("alice", "fastn", "send", "bob", text)
	}
	waitsVisibly(t, north, 2)
	backup := takeBackup(t, north)
	north.Reboot()
	north.Eventually(soon, "fastnd to be active without a client", func() bool {
		return strings.TrimSpace(north.Run("systemctl", "is-active", "fastnd").Out) == "active"
	})
	sent = append(sent, "after the reboot")
	north.MustAs("alice", "fastn", "send", "bob", sent[2])
	waitsVisibly(t, north, 3)
	if got := north.MustAs("alice", "fastn", "outbox"); !strings.Contains(got, "NEXT TRY") || strings.Count(got, " queued ") != 3 {
		t.Errorf("fastn outbox while bob's machine is off:\n%s", got)
	}

	on := time.Now()
	south.PowerOn()
	booted := time.Now()
	allSent(t, north, "alice")
	t.Logf("%v after bob's machine had booted, which took %v, all was delivered",
		time.Since(booted).Round(time.Millisecond), booted.Sub(on).Round(time.Millisecond))
	if got := texts(t, south, "bob")[had:]; !slices.Equal(got, sent) {
		t.Errorf("bob has %q, alice sent %q", got, sent)
	}
	if got := south.MustAs("bob", "fastn", "inbox"); strings.Count(got, "while you are off") != 1 || !strings.Contains(got, "alice") {
		t.Errorf("fastn inbox:\n%s", got)
	}
	return backup
}

// waitsVisibly: n messages of alice's are in her outbox, each with why it waits and
// when it is tried next.
func waitsVisibly(t *testing.T, m *nspawn.Machine, n int) {
	t.Helper()
	var list []api.OutboxMessage
	m.Eventually(soon, "the outbox to tell why its messages wait", func() bool {
		list = outbox(t, m, "alice")
		return len(list) == n && !slices.ContainsFunc(list, func(o api.OutboxMessage) bool { return o.Reason == "" || o.NextTry == nil })
	})
	for _, o := range list {
		if o.State != api.StateQueued || o.Code != api.CodePeerUnreachable && o.Code != api.CodeTimeout || o.Contact != "bob" {
			t.Errorf("a message to a machine that is off: %+v", o)
		}
	}
}

// delivered sends a text and waits until the receiver's machine has it.
func delivered(m *nspawn.Machine, user, to, text string) {
	m.MustAs(user, "fastn", "send", to, text, "--wait=delivered", "--timeout", "2m")
}

func outbox(t *testing.T, m *nspawn.Machine, user string) (list []api.OutboxMessage) {
	t.Helper()
	if err := json.Unmarshal([]byte(m.MustAs(user, "fastn", "outbox", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// allSent waits until nothing of user's is on its way.
func allSent(t *testing.T, m *nspawn.Machine, user string) {
	t.Helper()
	var list []api.OutboxMessage
	defer func() {
		if t.Failed() && len(list) > 0 {
			t.Logf("%d messages are not delivered, the first is %+v", len(list), list[0])
		}
	}()
	m.Eventually(soon, "all to be delivered", func() bool {
		list = outbox(t, m, user)
		return len(list) == 0
	})
}

// texts is user's inbox, oldest first.
func texts(t *testing.T, m *nspawn.Machine, user string) (list []string) {
	t.Helper()
	var inbox []struct{ Data struct{ Text string } }
	if err := json.Unmarshal([]byte(m.MustAs(user, "fastn", "inbox", "--json")), &inbox); err != nil {
		t.Fatal(err)
	}
	for _, i := range inbox {
		list = append(list, i.Data.Text)
	}
	return list
}

// mailThroughUpgrades upgrades the sender's machine and then the receiver's, while
// several programs send a thousand messages and more.
func mailThroughUpgrades(t *testing.T, north, south *nspawn.Machine, file string) {
	const programs, each = 4, 250
	had := len(texts(t, south, "bob"))
	load := startProbe(t, north, "alice", "mail", "bob", fmt.Sprint(programs), fmt.Sprint(each))
	load.expect("ready")
	for _, m := range []*nspawn.Machine{north, south} {
		upgrade(t, m, upgraded, putIn(m, file))
	}
	delivered(south, "bob", "alice", "since the backup")
	load.stdin.Close()
	var senders []struct {
		Sent int
		Told map[string]int
	}
	out := load.line()
	if err := load.wait(); err != nil || json.Unmarshal([]byte(out), &senders) != nil || len(senders) != programs {
		t.Fatalf("what the programs sent: %q, %v", out, err)
	}
	allSent(t, north, "alice")
	got := texts(t, south, "bob")[had:]
	for i, s := range senders {
		var want []string
		for k := range s.Sent {
			want = append(want, fmt.Sprintf("mail %d %d", i, k))
		}
		ours := slices.DeleteFunc(slices.Clone(got), func(text string) bool { return !strings.HasPrefix(text, fmt.Sprintf("mail %d ", i)) })
		if s.Sent < each || !slices.Equal(ours, want) {
			t.Errorf("program %d sent %d messages, %d arrived, not the same or in another order: %.2000q", i, s.Sent, len(ours), ours)
		}
		t.Logf("program %d sent %d messages, %d arrived; tries that failed: %v", i, s.Sent, len(ours), s.Told)
	}
}

// replaced is a machine whose place another one takes.
type replaced struct {
	backup    string // what fastn daemon backup wrote
	uid       string // alice's
	ids, node string
	inbox     []string
}

// takeBackup has alice, who is an administrator, make it.
func takeBackup(t *testing.T, m *nspawn.Machine) replaced {
	const file = "/home/alice/fastn.tar"
	m.MustAs("alice", "fastn", "daemon", "backup", file)
	return replaced{backup: m.Must("base64", file), uid: m.Must("id", "-u", "alice"),
		ids: m.MustAs("alice", "fastn", "id", "--json"), node: status(t, m).Node.ID, inbox: texts(t, m, "alice")}
}

// replace restores the backup on a machine that has nothing, as the manual says.
func replace(t *testing.T, s suite, north, south *nspawn.Machine, was replaced) {
	had := texts(t, south, "bob")
	north.PowerOff()
	nspawn.Unlink(north, south)
	spare := boot(t, s, "spare")
	nspawn.Link(spare, south, northAddress, southAddress)
	install(t, spare)
	spare.Must("useradd", "--create-home", "--uid", was.uid, "--groups", "fastn", "alice")
	if r := spare.RunInput("root", was.backup, "sh", "-c", "umask 077 && base64 -d >/root/fastn.tar"); r.Code != 0 {
		t.Fatalf("%v", r)
	}
	for _, command := range restoreCommands(t, spare) {
		spare.Must("sh", "-c", strings.ReplaceAll(command, "FILE", "/root/fastn.tar"))
	}
	if got := spare.MustAs("alice", "fastn", "id", "--json"); got != was.ids {
		t.Errorf("alice's identities are %s, and were %s", got, was.ids)
	}
	if got := status(t, spare); got.Node.ID != was.node || len(got.Problems) > 0 {
		t.Errorf("the status of the machine that took the place of %s: %+v", was.node, got)
	}
	if got := texts(t, spare, "alice"); !slices.Equal(got, was.inbox) || !slices.Contains(got, "kept") {
		t.Errorf("alice's inbox has %q, and had %q", got, was.inbox)
	}
	for _, unit := range []string{"fastn.socket", "fastnd.service"} {
		if got := strings.TrimSpace(spare.Run("systemctl", "is-enabled", unit).Out); got != "enabled" {
			t.Errorf("%s is %q, so that it is gone after a reboot", unit, got)
		}
	}
	// What was queued then is sent again, and is known.
	delivered(spare, "alice", "bob", "from the new machine")
	allSent(t, spare, "alice")
	if got, want := texts(t, south, "bob"), append(had, "from the new machine"); !slices.Equal(got, want) {
		t.Errorf("bob has %d messages, the last %q; he had %d", len(got), got[max(0, len(got)-5):], len(had))
	}
	delivered(south, "bob", "alice", "to the new machine")
	if got, want := texts(t, spare, "alice"), append(was.inbox, "to the new machine"); !slices.Equal(got, want) {
		t.Errorf("alice's inbox has %q, want %q", got, want)
	}
}

// restoreCommands are those of the manual for a machine without a daemon so far.
func restoreCommands(t *testing.T, m *nspawn.Machine) (commands []string) {
	t.Helper()
	_, backup, _ := strings.Cut(m.Must("zcat", "/usr/share/man/man8/fastnd.8.gz"), "\n.Sh BACKUP\n")
	_, block, _ := strings.Cut(backup, "\n.Bd -literal -offset indent\n")
	block, _, ended := strings.Cut(block, "\n.Ed\n")
	if !ended || !strings.Contains(block, "--restore FILE") {
		t.Fatalf("fastnd(8) has no commands for a restore: %.500s", backup)
	}
	return strings.Split(block, "\n")
}
