package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/internal/config"
	"github.com/fastn-stack/fastnd/internal/systemd"
	"github.com/fastn-stack/fastnd/service/api"
)

const (
	systemConfig = "/etc/fastn/fastn.toml"
	systemState  = "/var/lib/fastn"
	homeConfig   = "fastn.toml"
	homeLock     = "fastnd.lock"
	socketName   = "control" // FileDescriptorName= of fastn.socket
)

// Options are what the command line says.
type Options struct {
	ConfigPath string    // empty: the usual place
	Home       string    // not empty: run for one user, everything below it
	Version    string    // told by hello
	Stderr     io.Writer // for the log, where there is no journal

	now       func() time.Time     // the clock of delegations and tickets; tests set it
	uptime    func() time.Duration // what a clock is compared with; tests set it
	diskRetry time.Duration        // diskRetry if 0; tests set it
}

func (o Options) clock() func() time.Time {
	if o.now != nil {
		return o.now
	}
	return time.Now
}

func (o Options) perUser() bool { return o.Home != "" }

func (o Options) configPath() string {
	switch {
	case o.ConfigPath != "":
		return o.ConfigPath
	case o.perUser():
		return filepath.Join(o.Home, homeConfig)
	}
	return systemConfig
}

// loadConfig reads the configuration. A file at the usual place may be missing.
func (o Options) loadConfig() (config.Config, error) {
	base := config.Default()
	if o.perUser() {
		base = config.DefaultPerUser()
	}
	c, err := config.LoadOver(base, o.configPath())
	if errors.Is(err, fs.ErrNotExist) && o.ConfigPath == "" {
		return base, nil
	}
	return c, err
}

// CheckConfig reads the configuration and touches nothing else.
func CheckConfig(o Options) error {
	_, err := o.loadConfig()
	return err
}

// Hint returns the next step that err names, or "".
func Hint(err error) string {
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e.Hint
	}
	return ""
}

// place is where a daemon lives: its folder, its socket, and what keeps a
// second one out.
type place struct {
	dir      string
	socket   string
	listener net.Listener
	lock     *os.File    // per-user only
	made     os.FileInfo // the socket that this daemon made, per-user only
}

func (o Options) open(ctx context.Context) (*place, error) {
	if o.perUser() {
		return openHome(ctx, o.Home)
	}
	return openSystem()
}

// openSystem takes the socket that systemd made.
func openSystem() (*place, error) {
	passed, err := systemd.Inherit()
	if err != nil {
		return nil, err
	}
	listeners := passed.Listeners[socketName]
	if len(listeners) != 1 {
		return nil, errors.Join(passed.Close(), api.Errorf(api.CodeInternal, "systemd passed %d control sockets, one is needed", len(listeners)).
			WithHint(`start it with "systemctl start fastn.socket"; or run it for one user with "fastn --home DIR daemon start"`))
	}
	p := &place{dir: systemState, listener: listeners[0], socket: listeners[0].Addr().String()}
	// A drop-in may add others; ours is the unit's own, which comes first.
	if dirs := filepath.SplitList(os.Getenv("STATE_DIRECTORY")); len(dirs) > 0 {
		p.dir = dirs[0]
	}
	return p, nil
}

// openHome makes the folder and socket of a per-user daemon. The lock is held
// as long as the daemon lives, so that a socket at which nobody listens is a dead one's.
func openHome(ctx context.Context, home string) (_ *place, err error) {
	home, err = filepath.Abs(home)
	if err != nil {
		return nil, fmt.Errorf("home: %w", err)
	}
	p := &place{dir: home, socket: filepath.Join(home, api.HomeSocket)}
	if len(p.socket) > api.MaxSocketPath {
		return nil, api.Errorf(api.CodeInternal, "the socket's path %s has %d bytes, the limit is %d", p.socket, len(p.socket), api.MaxSocketPath).
			WithHint("choose a home with a shorter path")
	}
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, fmt.Errorf("home: %w", err)
	}
	if err := private(home); err != nil {
		return nil, err
	}
	p.lock, err = os.OpenFile(filepath.Join(home, homeLock), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("home: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	err = unix.Flock(int(p.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) || err == nil && listens(ctx, p.socket) { // somebody may have removed its lock
		return nil, api.Errorf(api.CodeConflict, "another fastnd runs in %s", home).
			WithHint(`"fastn --home %s daemon status" tells of it`, api.ShellQuote(home))
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", p.lock.Name(), err)
	}
	if err := os.Remove(p.socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("clear the old socket: %w", err)
	}
	// The umask makes the socket 0600 from its first moment.
	old := unix.Umask(0o177)
	p.listener, err = (&net.ListenConfig{}).Listen(ctx, "unix", p.socket)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	// Its name may be another daemon's by the time it is closed: see Close.
	if l, ok := p.listener.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(false)
	}
	if p.made, err = os.Lstat(p.socket); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return p, nil
}

// listens tells whether a program has the socket open, busy or not.
func listens(ctx context.Context, socket string) bool {
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", socket)
	if err != nil {
		return errors.Is(err, unix.EAGAIN) // its backlog is full
	}
	_ = c.Close()
	return true
}

// private refuses a home in which somebody else could put files of theirs in the
// place of ours.
func private(home string) error {
	var st unix.Stat_t
	if err := unix.Stat(home, &st); err != nil {
		return fmt.Errorf("home: %w", err)
	}
	if me := os.Geteuid(); int(st.Uid) != me {
		return api.Errorf(api.CodeNotPermitted, "the home %s belongs to uid %d, this is uid %d", home, st.Uid, me).
			WithHint("choose a home of your own with --home")
	}
	if st.Mode&0o022 != 0 {
		return api.Errorf(api.CodeNotPermitted, "the home %s has mode %04o: others could change what is in it", home, st.Mode&0o7777).
			WithHint("chmod 700 %s", api.ShellQuote(home))
	}
	return nil
}

// Close releases the socket and lets another daemon in.
func (p *place) Close() error {
	var errs []error
	if p.made != nil { // a home that was removed and made anew has another's socket
		if now, err := os.Lstat(p.socket); err == nil && os.SameFile(now, p.made) {
			errs = append(errs, os.Remove(p.socket))
		}
	}
	if p.listener != nil {
		if err := p.listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if p.lock != nil {
		errs = append(errs, p.lock.Close())
	}
	return errors.Join(errs...)
}

// Harden keeps the keys out of core files and away from other processes of the
// same user. For main, which has the process to itself.
func Harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	return nil
}
