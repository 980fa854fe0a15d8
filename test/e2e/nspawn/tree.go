package nspawn

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// DefaultSuite is the release that this package tests itself with.
const DefaultSuite = "bookworm"

// packages is what a machine has beyond Debian's essential ones. adduser is
// here because the hints that the tests carry out call it.
var packages = []string{"adduser", "apt", "bash-completion", "dbus", "iproute2", "procps", "systemd", "systemd-sysv"}

// Tree unpacks a Debian root of the given suite into dir, a folder that exists.
// The tree is made once with mmdebstrap from this machine's own apt sources and
// kept as a tarball in the user's cache folder, under a name that changes with
// everything that went into it. The unpacked tree must not be changed: machines
// use it as their lower layer.
func Tree(ctx context.Context, suite, dir string) error {
	sources, err := aptSources(suite)
	if err != nil {
		return err
	}
	tarball, err := cachedTarball(ctx, suite, sources)
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "tar", "--numeric-owner", "--xattrs", "-C", dir, "-xpf", tarball).CombinedOutput()
	if err != nil {
		return fmt.Errorf("unpack %s: %w: %s", tarball, err, out)
	}
	return nil
}

func cachedTarball(ctx context.Context, suite string, sources []byte) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w", err)
	}
	cache = filepath.Join(cache, "fastn-e2e")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", err
	}
	options := aptOptions(ctx)
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%q\n%q\n%s", suite, packages, options, sources)
	path := filepath.Join(cache, suite+"-"+hex.EncodeToString(h.Sum(nil)[:8])+".tar")
	// Two test binaries start at once; the second waits for the first one's work.
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	// Renamed when whole: an interrupted build leaves nothing behind the good name.
	partial := path + ".part"
	defer os.Remove(partial)
	args := []string{"--quiet", "--format=tar", "--variant=minbase", "--include=" + strings.Join(packages, ",")}
	for _, o := range options {
		args = append(args, "--aptopt="+o)
	}
	cmd := exec.CommandContext(ctx, "mmdebstrap", append(args, suite, partial, "-")...)
	cmd.Stdin = bytes.NewReader(sources)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build a %s tree with mmdebstrap: %w: %s", suite, err, out)
	}
	if err := os.Rename(partial, path); err != nil {
		return "", err
	}
	return path, nil
}

// aptOptions returns those settings of this machine's apt without which its
// mirror may not be reachable or its signatures look outdated.
func aptOptions(ctx context.Context) []string {
	out, err := exec.CommandContext(ctx, "apt-config", "dump", "--format", `%F "%v";%n`).Output()
	if err != nil {
		return nil // no apt-config: mmdebstrap will say so better
	}
	wanted := regexp.MustCompile(`(?m)^Acquire::(Check-Valid-Until|Check-Date|https?::Proxy) "[^"]+";$`)
	return wanted.FindAllString(string(out), -1)
}

var suiteField = regexp.MustCompile(`(?m)^Suites:.*$`)

// aptSources returns this machine's Debian sources, for another suite if asked.
func aptSources(suite string) ([]byte, error) {
	files, err := filepath.Glob("/etc/apt/sources.list.d/*.sources")
	if err != nil {
		return nil, err
	}
	files = append(files, "/etc/apt/sources.list")
	host, err := hostSuite()
	if err != nil {
		return nil, err
	}
	var all bytes.Buffer
	for _, name := range files {
		text, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !isDebianSource(name, text, host) {
			continue
		}
		if strings.HasSuffix(name, ".sources") {
			text = suiteField.ReplaceAllFunc(text, func(line []byte) []byte {
				return bytes.ReplaceAll(line, []byte(host), []byte(suite))
			})
		} else {
			text = bytes.ReplaceAll(text, []byte(host), []byte(suite))
		}
		all.Write(text)
		all.WriteString("\n\n")
	}
	if all.Len() == 0 {
		return nil, fmt.Errorf("no apt source for %s found under /etc/apt", host)
	}
	return all.Bytes(), nil
}

// isDebianSource leaves out third parties' sources: a suite of theirs rarely
// exists for another release, and the machines need nothing from them.
func isDebianSource(name string, text []byte, host string) bool {
	return bytes.Contains(text, []byte(host)) &&
		(filepath.Base(name) == "debian.sources" || filepath.Base(name) == "sources.list")
}

func hostSuite() (string, error) {
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	m := regexp.MustCompile(`(?m)^VERSION_CODENAME=(\w+)$`).FindSubmatch(text)
	if m == nil {
		return "", fmt.Errorf("/etc/os-release names no VERSION_CODENAME: this machine is not a Debian one")
	}
	return string(m[1]), nil
}
