package main

import (
	"context"
	"errors"
	"os/exec"
	"sync"

	"github.com/fastn-stack/fastnd/service/api"
)

type listenCmd struct {
	Protocol string   `arg:"" valid:"protocol" help:"Name of the protocol to serve." complete:"protocol"`
	Command  []string `arg:"" optional:"" name:"cmd" help:"Program to run for each call and stream, or message, behind --."`
	Instance string   `valid:"name" help:"Instance of the protocol, if it has several." placeholder:"NAME"`
	Messages bool     `help:"Take messages instead of calls and streams."`
	Empty    bool     `name:"empty-inbox" help:"With --messages Text: give the unread messages of your inbox, and new ones, to the program instead of you."`
	Max      int      `help:"How many programs may run at the same time; more wait." default:"64" placeholder:"N"`
}

func (*listenCmd) Help() string {
	return `Each stream is given to a new program as its standard input and output, as inetd does. A program
that fails or is killed aborts its stream. Each call is given to a new program as well: the request's
data on standard input; what it prints must be JSON and is the answer. FASTN_FROM is the caller's id52,
FASTN_CONTACT its name among your contacts or empty, FASTN_PROTOCOL and FASTN_INSTANCE what was asked
for, FASTN_KIND "call" or "stream".

Without a program the first stream becomes standard input and output, and calls are not served.

With --messages each message is given to a new program: its data on standard input, its id, which is the
same whenever the message is told, in FASTN_MESSAGE_ID, FASTN_KIND is "message". The program takes it by
exit code 0; else it is told again, after a pause that grows to 5 minutes, or when listen is run again.
Messages of one sender come in order. Those for Text are for people, and go to a program only with
--empty-inbox, or where they were sent to another --instance.

Who may use the protocol is said with "fastn grant add". Serving ends with this command. When the daemon
restarts, the programs that run are told to end: their streams are aborted, their callers told that the
outcome is not known, and their messages told again. Then it listens anew; a daemon that is stopped is
waited for.

Example:
  fastn listen Backup -- sh -c 'cat > "backup-$FASTN_CONTACT.tar"'
  fastn listen Backup > backup.tar
  fastn --json listen Upper -- tr a-z A-Z
  fastn listen Orders --messages -- sh -c 'cat > "$FASTN_MESSAGE_ID.json"'`
}

func (c *listenCmd) run(a *app) error {
	if c.Max < 1 {
		return usage("--max %d: the least is 1", c.Max).WithHint("give how many programs may run at the same time, or leave it out for 64")
	}
	if c.Messages && len(c.Command) == 0 {
		return usage("--messages needs a program").WithHint("name it behind --")
	}
	if c.emptiesInbox() && !c.Empty {
		return usage("%s messages are for people: the program would take those that are unread out of your inbox", c.Protocol).
			WithHint("name the instance that the program is for with --instance, or add --empty-inbox if it is to have them")
	}
	if len(c.Command) > 0 {
		if _, err := exec.LookPath(c.Command[0]); err != nil {
			if e, ok := errors.AsType[*exec.Error](err); ok {
				err = pathCause(e.Err)
			}
			return failed("cannot run %s: %v", c.Command[0], err).
				WithHint("name a program that exists and that you may run, with its path or from $PATH")
		}
	}
	r := api.Request{Protocol: c.Protocol, Instance: c.Instance, From: a.identity()}
	var kinds []string // all
	switch {
	case c.Messages:
		kinds = []string{"message"}
	case len(c.Command) == 0:
		kinds = []string{"stream"}
	}
	// The same identity each time: the default one may be removed meanwhile, and
	// to ask for it again would make another.
	own, err := fetch[api.Identity](a, api.VerbIdentityShow, api.IdentityArgs{Identity: r.From})
	if err != nil {
		return err
	}
	r.From = own.ID52
	for again := false; ; again = true {
		err := c.listen(a, r, again, kinds)
		if _, ok := errors.AsType[lostListener](err); !ok || a.ctx.Err() != nil {
			return endOfWatch(a, err)
		}
	}
}

// emptiesInbox tells that what people read goes to the program.
func (c *listenCmd) emptiesInbox() bool {
	return c.Messages && c.Protocol == api.ProtocolText && api.Instance(c.Instance) == api.DefaultInstance
}

// lostListener is the end of a registration with the connection that held it.
type lostListener struct{ error }

// listen serves on one connection to the daemon; again waits for one.
func (c *listenCmd) listen(a *app, r api.Request, again bool, kinds []string) error {
	d, err := a.daemon()
	if err != nil {
		return err
	}
	l, err := d.Listen(a.ctx, r, again, kinds...)
	if err != nil {
		return a.explain(err)
	}
	defer l.Close()
	a.note("listening for %s%s", c.Protocol, yesNo(again, " again", ""))
	if len(c.Command) == 0 {
		return c.first(a, l)
	}
	return c.serve(a, l)
}

// first gives the first stream to standard input and output.
func (c *listenCmd) first(a *app, l listener) error {
	for {
		in, err := l.Next(a.ctx)
		if err != nil {
			a.lost("")
			return lostListener{err}
		}
		s, err := in.Accept(a.ctx)
		if err != nil {
			a.note("%s went away: %v", callerName(in), err)
			continue
		}
		a.note("stream from %s", callerName(in))
		return a.pump(s)
	}
}

// lost tells that the connection to the daemon has ended, unless it was left.
func (a *app) lost(programs string) {
	if a.ctx.Err() == nil {
		a.note("the connection to the daemon has ended: %slistening goes on when it is back", programs)
	}
}

// serve runs a program for each request, until interrupted or until the connection
// to the daemon ends; then it tells the programs to end, and waits for them:
// without the daemon nobody gets what they still do.
func (c *listenCmd) serve(a *app, l listener) error {
	var running sync.WaitGroup
	defer running.Wait()
	ctx, end := context.WithCancel(a.ctx)
	defer end()
	programs := *a
	programs.ctx = ctx
	free := make(chan struct{}, c.Max)
	for {
		in, err := l.Next(a.ctx)
		if err != nil {
			a.lost("the programs that run are told to end, ")
			return lostListener{err}
		}
		running.Go(func() {
			select { // here, so that Next learns at once of a daemon that died
			case free <- struct{}{}:
			case <-in.Gone:
				return
			case <-ctx.Done():
				return
			}
			defer func() { <-free }()
			c.serveOne(&programs, in)
		})
	}
}

func (c *listenCmd) serveOne(a *app, in *incoming) {
	if a.flags.JSON {
		told := in.Incoming
		told.Data = nil
		_ = a.printValue(told)
	} else {
		a.note("%s from %s", in.Kind, callerName(in))
	}
	// What fails is told before the peer learns of it: who then interrupts this
	// command finds out why. It is told once.
	told := false
	tell := func(err error) {
		if err != nil && !told && a.ctx.Err() == nil {
			told = true
			a.note("%s from %s: %v", in.Kind, callerName(in), err)
		}
	}
	switch in.Kind {
	case "call":
		tell(c.answerCall(a, in, tell))
	case "message":
		tell(c.takeMessage(a, in))
	default:
		tell(c.serveStream(a, in, tell))
	}
}

func callerName(in *incoming) string {
	if in.Contact != "" {
		return in.Contact
	}
	return in.From
}
