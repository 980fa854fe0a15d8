package e2e

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/test/e2e/nspawn"
)

// TestPackage follows one machine from the first installation to the purge. The
// subtests build on one another.
func TestPackage(t *testing.T) { onEach(t, testPackage) }

func testPackage(t *testing.T, s suite) {
	m := boot(t, s, "solo")
	install(t, m)
	step := func(name string, f func(*testing.T, *nspawn.Machine)) {
		t.Run(name, func(t *testing.T) { f(t, m.For(t)) })
	}
	step("fresh install is disabled and inactive", freshInstall)
	step("users and groups exist", usersAndGroups)
	step("files, man pages and completions are in place", filesInPlace)
	step("the installation lowers no buffer that is tuned higher", tunedHigher)
	step("systemd-analyze verify is clean", analyzeVerify)
	step("systemd-analyze security is at most 1.3", analyzeSecurity)

	addUser(m, "alice", "fastn")
	addUser(m, "bob", "fastn")
	addUser(m, "mallory")
	step("enable --now, and the first client starts the daemon", firstClient)
	step("100 first clients at once: one start, 100 answers", hundredClients)
	step("an outsider is refused with the hint, members pass", membership)
	step("nobody sees or uses another user's objects", ownership)
	step("what one user knows of a peer is not told to another", addressesOfOthers)
	step("a call is answered by whom it was told only", callsOfOthers)
	step("who gave an identity away gets no calls for it", formerOwner)
	step("administrators' verbs are for administrators", adminVerbs)
	step("reload with a bad file keeps serving and says so", badReload)
	step("one who left the group is cut off by daemon disconnect", disconnect)
	step("a backup is restored on an empty machine", backupAndRestore)
	step("an upgrade refuses no client", func(t *testing.T, m *nspawn.Machine) {
		upgradeUnderLoad(t, m, "alice", upgraded, putIn(m, nextPackage(t, s)))
	})
	step("a reboot brings it back without a client", reboot)
	step("remove keeps everything, reinstall resumes", removeAndReinstall)
	step("purge keeps the keystore and says where", purge)
	step("a reinstall after purge is fresh but for the keys", reinstallAfterPurge)
	step("no process or unit is left", nothingLeft)
}

func freshInstall(t *testing.T, m *nspawn.Machine) {
	for _, unit := range []string{"fastn.socket", "fastnd.service"} {
		if got := strings.TrimSpace(m.Run("systemctl", "is-enabled", unit).Out); got != "disabled" {
			t.Errorf("%s is %q, want disabled", unit, got)
		}
		if got := strings.TrimSpace(m.Run("systemctl", "is-active", unit).Out); got != "inactive" {
			t.Errorf("%s is %q, want inactive", unit, got)
		}
	}
	if got := strings.TrimSpace(m.Run("systemctl", "--global", "is-enabled", "fastn-mail.service").Out); got != "disabled" {
		t.Errorf("fastn-mail.service is %q for all users, want disabled", got)
	}
	if r := m.Run("ls", "/run/fastn/daemon.sock"); r.Code == 0 {
		t.Error("the control socket exists")
	}
}

func usersAndGroups(t *testing.T, m *nspawn.Machine) {
	m.Must("getent", "group", "fastn")
	m.Must("getent", "group", "fastn-admin")
	user := strings.Split(m.Must("getent", "passwd", "fastn-daemon"), ":")
	if uid, err := strconv.Atoi(user[2]); err != nil || uid >= 1000 {
		t.Errorf("fastn-daemon has uid %s, which is not a system user's", user[2])
	}
	if shell := user[len(user)-1]; !strings.HasSuffix(shell, "/nologin") {
		t.Errorf("fastn-daemon has the shell %q", shell)
	}
}

func filesInPlace(t *testing.T, m *nspawn.Machine) {
	for _, path := range []string{
		"/usr/bin/fastn", "/usr/sbin/fastnd", "/etc/fastn/fastn.toml",
		"/usr/share/man/man1/fastn.1.gz", "/usr/share/man/man8/fastnd.8.gz", "/usr/share/man/man5/fastn.toml.5.gz",
		"/usr/share/bash-completion/completions/fastn", "/usr/share/zsh/vendor-completions/_fastn",
		"/usr/share/fish/vendor_completions.d/fastn.fish",
	} {
		if r := m.Run("test", "-s", path); r.Code != 0 {
			t.Errorf("%s is missing or empty", path)
		}
	}
	if got := m.Must("dpkg-query", "--show", "--showformat=${Conffiles}", "fastn"); !strings.Contains(got, "/etc/fastn/fastn.toml") {
		t.Errorf("the configuration is not a conffile: %q", got)
	}
	m.Must("fastnd", "--check-config")
	m.Must("bash", "-n", "/usr/share/bash-completion/completions/fastn")
	if got := m.Must("journalctl", "--list-catalog"); !strings.Contains(got, "fastn") {
		t.Error("the journal's catalog has no entry of fastn's")
	}
}

// The machine's network is not the host's, so that nothing can be written: what
// the installation would have written is in the log.
func tunedHigher(t *testing.T, m *nspawn.Machine) {
	const file = "/etc/sysctl.d/60-tuned.conf"
	m.WriteFile(file, "net.core.rmem_max = 26214400\n", 0o644)
	defer m.Must("rm", file)
	line := m.Must("grep", "-h", "systemd-sysctl", "/var/lib/dpkg/info/fastn.postinst")
	command, _, _ := strings.Cut(line, ">")
	r := m.Run("sh", "-c", "SYSTEMD_LOG_LEVEL=debug "+command)
	for _, want := range []string{`rmem_max' to '26214400'`, `wmem_max' to '7500000'`} {
		if r.Code != 0 || !strings.Contains(r.Err, want) {
			t.Errorf("%q does not set %q: %v", command, want, r)
		}
	}
	if strings.Contains(r.Err, `rmem_max' to '7500000'`) || strings.Contains(r.Err, "pid_max' to") {
		t.Errorf("%q sets what it should not: %v", command, r)
	}
}

func analyzeVerify(t *testing.T, m *nspawn.Machine) {
	// man is not installed on the machine, so that pages cannot be looked up.
	r := m.Run("systemd-analyze", "verify", "--man=no", "fastn.socket", "fastnd.service")
	if r.Code != 0 || strings.TrimSpace(r.Out+r.Err) != "" {
		t.Errorf("%v", r)
	}
	// Asked for alone: a user's manager looks for units elsewhere.
	r = m.Run("env", "XDG_RUNTIME_DIR=/run", "systemd-analyze", "verify", "--user", "--man=no", "/usr/lib/systemd/user/fastn-mail.service")
	if r.Code != 0 || strings.Contains(r.Out+r.Err, "fastn") {
		t.Errorf("%v", r)
	}
}

func analyzeSecurity(t *testing.T, m *nspawn.Machine) {
	r := m.Run("systemd-analyze", "security", "--no-pager", "fastnd.service")
	found := regexp.MustCompile(`Overall exposure level for fastnd.service: ([0-9.]+)`).FindStringSubmatch(r.Out)
	if found == nil {
		t.Fatalf("no exposure level: %v", r)
	}
	if level, err := strconv.ParseFloat(found[1], 64); err != nil || level > 1.3 {
		t.Errorf("exposure level %s, want at most 1.3\n%s", found[1], r.Out)
	}
}

func firstClient(t *testing.T, m *nspawn.Machine) {
	enable(m)
	if got := m.Must("systemctl", "is-active", "fastn.socket"); got != "active" {
		t.Fatalf("fastn.socket is %q", got)
	}
	if got := m.Must("stat", "--format=%a %U:%G", "/run/fastn/daemon.sock"); got != "660 root:fastn" {
		t.Errorf("the control socket is %q, want 660 root:fastn", got)
	}
	for _, unit := range []string{"fastn.socket", "fastnd.service"} {
		if got := m.Must("systemctl", "is-enabled", unit); got != "enabled" {
			t.Errorf("%s is %q, want enabled", unit, got)
		}
	}
	// A client may have come before this line; none has, so it must be inactive.
	if got := strings.TrimSpace(m.Run("systemctl", "is-active", "fastnd").Out); got != "inactive" {
		t.Errorf("fastnd is %q before the first client", got)
	}
	if got := m.MustAs("alice", "fastn", "call", "self", "Echo", `{"message":"hello"}`); !strings.Contains(got, `"Echo: hello"`) {
		t.Errorf("the first call answered %q", got)
	}
	if got := m.Must("systemctl", "is-active", "fastnd"); got != "active" {
		t.Errorf("fastnd is %q after the first client", got)
	}
}

func hundredClients(t *testing.T, m *nspawn.Machine) {
	m.Must("systemctl", "stop", "fastnd.service")
	from := cursor(m)
	if got := m.MustAs("alice", "probe", "burst", "100"); got != "100" {
		t.Errorf("%s of 100 clients were answered rightly", got)
	}
	if got := starts(t, m, from); got != 1 {
		t.Errorf("the daemon was started %d times, want once", got)
	}
}

func membership(t *testing.T, m *nspawn.Machine) {
	// A login repeats the primary group among the supplementary ones; carol must
	// pass by the primary one alone.
	m.Must("useradd", "--create-home", "--gid", "fastn", "carol")
	if r := m.Run("setpriv", "--reuid=carol", "--regid=fastn", "--clear-groups", "--reset-env",
		"fastn", "call", "self", "Echo", `{"message":"x"}`); r.Code != 0 {
		t.Errorf("carol is a member by her primary group but was refused: %v", r)
	}
	for _, user := range []string{"alice", "carol", "root"} {
		if r := m.RunAs(user, "fastn", "call", "self", "Echo", `{"message":"x"}`); r.Code != 0 {
			t.Errorf("%s is a member but was refused: %v", user, r)
		}
	}
	r := m.RunAs("mallory", "fastn", "call", "self", "Echo", `{"message":"x"}`)
	lines := strings.Split(strings.TrimSpace(r.Err), "\n")
	if r.Code != 3 || r.Out != "" || len(lines) != 2 ||
		lines[0] != "fastn: cannot reach the fastn daemon at /run/fastn/daemon.sock: permission denied" {
		t.Errorf("outsider: %v", r)
	}
	hint := regexp.MustCompile(`^hint: .*"(adduser mallory fastn)", then log in again$`).FindStringSubmatch(lines[len(lines)-1])
	if hint == nil {
		t.Fatalf("outsider got no usable hint: %v", r)
	}
	m.Must("sh", "-c", hint[1])
	if r := m.RunAs("mallory", "fastn", "call", "self", "Echo", `{"message":"x"}`); r.Code != 0 {
		t.Errorf("the hint did not help: %v", r)
	}
	m.Must("gpasswd", "--delete", "mallory", "fastn")
	if r := m.RunAs("mallory", "fastn", "status"); r.Code != 3 {
		t.Errorf("no longer a member, yet not refused: %v", r)
	}
}

func reboot(t *testing.T, m *nspawn.Machine) {
	before := m.MustAs("alice", "fastn", "id", "--json")
	m.Reboot()
	m.Eventually(soon, "fastnd to be active without a client", func() bool {
		return strings.TrimSpace(m.Run("systemctl", "is-active", "fastnd").Out) == "active"
	})
	if got := m.MustAs("alice", "fastn", "id", "--json"); got != before {
		t.Errorf("identities after the reboot: %s\nbefore: %s", got, before)
	}
}

// backupAndRestore runs what the manual says, and what fastn prints.
func backupAndRestore(t *testing.T, m *nspawn.Machine) {
	m.MustAs("alice", "fastn", "send", "self", "kept", "--wait=delivered")
	before := [...]string{m.MustAs("alice", "fastn", "id", "--json"), m.MustAs("alice", "fastn", "inbox", "--json"), status(t, m).Node.ID}
	if r := m.RunAs("bob", "fastn", "daemon", "backup", "/tmp/bobs"); r.Code != 4 {
		t.Errorf("a backup by bob: %v", r)
	}
	m.Must("fastn", "daemon", "backup", "/root/fastn.backup")
	if got := m.Must("stat", "-c", "%a %u", "/root/fastn.backup"); got != "600 0" {
		t.Errorf("the backup is %s", got)
	}
	if r := m.Run("fastnd", "--restore", "/root/fastn.backup"); r.Code != 1 || !strings.Contains(r.Err, "systemctl stop fastn.socket fastnd.service") {
		t.Errorf("restored under a daemon that runs: %v", r)
	}
	commands := m.Run("fastn", "daemon", "restore", "/root/fastn.backup").Out
	for command := range strings.Lines(commands) {
		if strings.Contains(command, "--restore") {
			if r := m.Run("sh", "-c", command); r.Code != 1 || !strings.Contains(r.Err, "hint: ") {
				t.Errorf("restored over what is there: %v", r)
			}
			m.Must("mv", "/var/lib/fastn", "/var/lib/fastn.old")
		}
		m.Must("sh", "-c", command)
	}
	if got := m.Must("stat", "-c", "%a %U", "/var/lib/fastn", "/var/lib/fastn/keystore", "/var/lib/fastn/fastn.db"); got != "700 fastn-daemon\n700 fastn-daemon\n600 fastn-daemon" {
		t.Errorf("modes and owners: %q, after\n%s", got, commands)
	}
	after := [...]string{m.MustAs("alice", "fastn", "id", "--json"), m.MustAs("alice", "fastn", "inbox", "--json"), status(t, m).Node.ID}
	if after != before {
		t.Errorf("after the restore: %q\nbefore: %q", after, before)
	}
	if p := status(t, m).Problems; len(p) > 0 {
		t.Errorf("problems: %+v", p)
	}
	m.Must("rm", "-r", "/var/lib/fastn.old", "/root/fastn.backup")
}

func removeAndReinstall(t *testing.T, m *nspawn.Machine) {
	before := m.MustAs("alice", "fastn", "id", "--json")
	if r := apt(m, "remove", "fastn"); r.Code != 0 {
		t.Fatalf("%v", r)
	}
	gone(t, m)
	m.Must("test", "-s", "/var/lib/fastn/keystore/node.key")
	m.Must("test", "-s", "/etc/fastn/fastn.toml")
	if r := apt(m, "install", "fastn"); r.Code != 0 {
		t.Fatalf("%v", r)
	}
	// It was enabled before, so it is again, and no client has to know.
	if got := m.MustAs("alice", "fastn", "id", "--json"); got != before {
		t.Errorf("identities after the reinstallation: %s\nbefore: %s", got, before)
	}
}

func purge(t *testing.T, m *nspawn.Machine) {
	keys := m.Must("find", "/var/lib/fastn/keystore", "-name", "*.key")
	r := apt(m, "purge", "fastn")
	if r.Code != 0 {
		t.Fatalf("%v", r)
	}
	if !strings.Contains(r.Out+r.Err, "/var/lib/fastn/keystore") {
		t.Errorf("purge does not say where the keys are: %v", r)
	}
	if got := m.Must("find", "/var/lib/fastn/keystore", "-name", "*.key"); got != keys || keys == "" {
		t.Errorf("keys after the purge:\n%s\nbefore:\n%s", got, keys)
	}
	if got := m.Must("ls", "-A", "/var/lib/fastn"); got != "keystore" {
		t.Errorf("/var/lib/fastn holds %q after the purge", got)
	}
	for _, path := range []string{"/etc/fastn", "/etc/systemd/system/sockets.target.wants/fastn.socket",
		"/etc/systemd/system/multi-user.target.wants/fastnd.service"} {
		if m.Run("test", "-e", path).Code == 0 || m.Run("test", "-L", path).Code == 0 {
			t.Errorf("%s is still there after the purge", path)
		}
	}
	gone(t, m)
}

func reinstallAfterPurge(t *testing.T, m *nspawn.Machine) {
	install(t, m)
	freshInstall(t, m)
	before := m.Must("sha256sum", "/var/lib/fastn/keystore/node.key")
	enable(m)
	m.MustAs("alice", "fastn", "call", "self", "Echo", `{"message":"x"}`)
	if got := m.Must("sha256sum", "/var/lib/fastn/keystore/node.key"); got != before {
		t.Error("the node key was replaced")
	}
}

func nothingLeft(t *testing.T, m *nspawn.Machine) {
	if r := apt(m, "purge", "fastn"); r.Code != 0 {
		t.Fatalf("%v", r)
	}
	gone(t, m)
	if got := m.Must("systemctl", "list-units", "--all", "--no-legend", "--plain", "fastn*"); got != "" {
		t.Errorf("units left: %s", got)
	}
	if r := m.Run("systemctl", "list-unit-files", "--no-legend", "fastn*"); strings.TrimSpace(r.Out) != "" {
		t.Errorf("unit files left: %v", r)
	}
	if got := m.Must("systemctl", "--failed", "--no-legend"); got != "" {
		t.Errorf("failed units: %s", got)
	}
}

// gone checks that nothing of the package runs or can be started any more.
func gone(t *testing.T, m *nspawn.Machine) {
	t.Helper()
	if r := m.Run("pgrep", "--list-full", "--uid", "fastn-daemon"); r.Code != 1 {
		t.Errorf("processes left: %v", r)
	}
	if got := m.Must("systemctl", "list-units", "--no-legend", "--plain", "--state=active,activating,failed", "fastn*.service", "fastn*.socket"); got != "" {
		t.Errorf("units still active: %s", got)
	}
	for _, path := range []string{"/run/fastn/daemon.sock", "/usr/bin/fastn", "/usr/sbin/fastnd"} {
		if m.Run("test", "-e", path).Code == 0 {
			t.Errorf("%s is still there", path)
		}
	}
}
