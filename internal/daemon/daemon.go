// Package daemon is fastnd: New, Run, Close. It is the one place where the
// parts are wired together.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fastn-stack/fastnd/internal/access"
	"github.com/fastn-stack/fastnd/internal/config"
	"github.com/fastn-stack/fastnd/internal/events"
	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/internal/messages"
	"github.com/fastn-stack/fastnd/internal/peercred"
	"github.com/fastn-stack/fastnd/internal/sqlite"
	"github.com/fastn-stack/fastnd/internal/systemd"
	"github.com/fastn-stack/fastnd/service/api"
)

// Daemon is one fastnd. Its states:
//
//	New ──▶ serving ──▶ stopping ──▶ closed
//	  └───▶ locked ─reload─┘
//
// Locked, the control socket is served but there is no node: no keys, no
// connections. A reload tries again.
type Daemon struct {
	o       Options
	place   *place
	log     *slog.Logger
	level   *slog.LevelVar
	journal *systemd.Log
	notify  systemd.Notifier
	policy  *peercred.Policy
	hub     *events.Hub
	server  *ipc.Server
	budgets *access.Budgets
	names   userNames
	spare   spare
	holders holders
	disk    disk
	// opening tells whether a database is being opened, and perhaps repaired.
	opening sqlite.Progress
	// confinement is what the unit takes away; set by New.
	confinement []api.Problem
	started     time.Time
	stopped     chan struct{} // closed by daemon.stop
	beat        chan struct{} // received by Run's loop, so that who sends learns that it turns
	stop        sync.Once

	// reloading serialises starts of the node and reloads; node and locked are
	// read without it.
	reloading     sync.Mutex
	config        config.Config // guarded by reloading
	underNode     config.Config // what the node was started with, guarded by reloading
	node          atomic.Pointer[node]
	locked        atomic.Pointer[api.Problem]
	messageLimits atomic.Pointer[messages.Limits]
	stopping      atomic.Bool                   // peers' requests are taken no more
	problems      atomic.Pointer[[]api.Problem] // of the last reload
}

// New reads the configuration, takes the control socket and starts the node.
// What is wrong with the configuration or the keys at this point leaves the
// daemon locked, not dead: see Daemon. The error is of the place itself: no
// socket, no folder, or another daemon in it.
func New(ctx context.Context, o Options) (*Daemon, error) {
	cfg, cfgErr := o.loadConfig()
	if cfgErr != nil && o.perUser() {
		return nil, cfgErr // somebody is there to read it
	}
	place, err := o.open(ctx)
	if err != nil {
		return nil, err
	}
	d := &Daemon{o: o, place: place, level: new(slog.LevelVar), started: time.Now(), stopped: make(chan struct{}), beat: make(chan struct{}), hub: events.New(time.Now)}
	d.journal = systemd.OpenLog("fastnd", d.level, o.Stderr)
	d.log = slog.New(systemd.QuietPeers(d.journal))
	d.policy = &peercred.Policy{PerUser: o.perUser(), OwnUID: uint32(os.Geteuid()), Group: "fastn", AdminGroup: "fastn-admin", Namespaced: namespaced()}
	d.disk.noticed, d.disk.write, d.disk.tasks = make(chan struct{}, 1), probeDisk, ownTasks
	d.noteConfined()
	d.budgets = access.NewBudgets(limits(config.Default().Budgets), d.names.get)
	d.server = ipc.New((*backend)(d), d.log, ipc.Options{})
	d.problems.Store(&[]api.Problem{})
	if cfgErr != nil {
		d.lock(systemd.MsgConfigRefused, problemOf(cfgErr, fmt.Sprintf("mend %s, then: systemctl reload fastnd", o.configPath())))
		return d, nil
	}
	d.apply(cfg)
	d.extended(func() { d.startNode(ctx) })
	return d, nil
}

// apply puts what needs no node in force; reloading is held, or nobody else is there yet.
func (d *Daemon) apply(cfg config.Config) {
	d.config = cfg
	d.budgets.SetLimits(limits(cfg.Budgets))
	d.messageLimits.Store(messageLimits(cfg))
	var level slog.Level
	if level.UnmarshalText([]byte(cfg.Log.Level)) == nil {
		d.level.Set(level)
	}
}

// startNode starts the node, or locks the daemon if it cannot be.
func (d *Daemon) startNode(ctx context.Context) {
	n, err := newNode(ctx, d)
	if err != nil {
		id, p := d.whyLocked(err)
		d.lock(id, p)
		if id == systemd.MsgDiskRefuses {
			d.disk.trouble.Store(&api.Problem{}) // told as why it is locked
			d.watch()
		}
		return
	}
	d.underNode = d.config
	d.node.Store(n)
	d.locked.Store(nil)
	n.announce(d.log)
}

func (d *Daemon) lock(id systemd.MessageID, p api.Problem) {
	d.locked.Store(&p)
	d.log.Error("locked: serving no identity", id.Attr(), "problem", p.Text, "fix", p.Fix)
}

// status is the line that systemctl status shows.
func (d *Daemon) status() string {
	text := "stopping"
	if p := d.locked.Load(); p != nil {
		text = "locked: " + p.Text
	} else if n := d.node.Load(); n != nil {
		text = "serving as node " + n.host.Node().Short()
		for _, p := range n.lossProblems() {
			text += "; " + p.Text
		}
	}
	for _, p := range d.machineProblems() {
		text += "; " + p.Text
	}
	return text
}

// machineProblems are those of the whole machine, beside locked.
func (d *Daemon) machineProblems() []api.Problem {
	var out []api.Problem
	if p := d.disk.trouble.Load(); p != nil && p.Text != "" {
		out = append(out, *p)
	}
	return slices.Concat(out, d.confinement, *d.problems.Load())
}

// Run serves until ctx ends or an administrator stops the daemon; a value on
// reload (SIGHUP) reads the configuration and the keystore again.
func (d *Daemon) Run(ctx context.Context, reload <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	served := make(chan error, 1)
	serving, leave := context.WithCancel(context.WithoutCancel(ctx))
	wg.Go(func() { served <- d.server.Serve(serving, d.place.listener) })
	wg.Go(func() {
		// Only when the watchdog's own request was taken: one that is left in the
		// socket would have systemd start the next daemon.
		defer leave()
		defer func() { <-ctx.Done() }()
		if err := d.notify.Watchdog(ctx, d.probe); err != nil {
			d.log.Error("no watchdog", "error", err)
		}
	})
	wg.Go(func() { d.watchDisk(ctx) })
	wg.Go(func() { newTidy().run(ctx) })
	if err := d.notify.Ready(d.status()); err != nil {
		d.log.Error("cannot tell systemd that the daemon is ready", "error", err)
	}
	for {
		select {
		case <-ctx.Done():
			return d.notify.Stopping()
		case <-d.stopped:
			return d.notify.Stopping()
		case err := <-served:
			return err
		case <-d.beat:
		case <-reload:
			d.reloadNotified(ctx)
		}
	}
}

// Close ends what is left in reverse order of New. It may be called once.
func (d *Daemon) Close() error {
	d.stopping.Store(true)
	d.server.Close()
	var errs []error
	d.reloading.Lock()
	defer d.reloading.Unlock()
	if n := d.node.Swap(nil); n != nil {
		errs = append(errs, n.Close())
	}
	return errors.Join(append(errs, d.place.Close(), d.journal.Close())...)
}

func problemOf(err error, fix string) api.Problem {
	if hint := Hint(err); hint != "" {
		fix = hint
	}
	return api.Problem{Text: err.Error(), Fix: fix}
}
