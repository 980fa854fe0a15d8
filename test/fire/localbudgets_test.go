package fire

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/peercred"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/test/process"
)

// budget is one of a local user's. use takes the n-th place of it and keeps what
// must be kept in held; the error is what the daemon refused it with.
type budget struct {
	setting string // the one that is to be named
	owner   string
	small   int // what it is set to at first, and what it is raised to
	larger  int
	unit    string // in fastn.toml
	use     func(p *places, n int) error
}

// places are connections on which a budget is used up.
type places struct {
	socket string
	open   []*lineConn
}

func (p *places) close() {
	for _, w := range p.open {
		w.Close()
	}
	p.open = nil
}

// more opens a connection that is kept.
func (p *places) more() (*lineConn, error) {
	w, err := dialLine(p.socket)
	if err == nil {
		p.open = append(p.open, w)
	}
	return w, err
}

// request asks for an answer of status ok, or returns the error that it is.
func (w *lineConn) request(line string) error {
	if err := w.send(line + "\n"); err != nil {
		return err
	}
	a, err := w.answer()
	if err != nil {
		return err
	}
	return a.Err()
}

func budgets(user string) []budget {
	return []budget{
		{"budgets.per_uid_connections", user, 3, 5, "", func(p *places, n int) error {
			w, err := p.more()
			if err != nil {
				return err
			}
			return w.request(`{"id":"1","type":"hello"}`)
		}},
		{"budgets.node_connections", "all users of this machine", 16, 18, "", func(p *places, n int) error {
			w, err := p.more()
			if err != nil {
				return err
			}
			return w.request(`{"id":"1","type":"hello"}`)
		}},
		{"budgets.per_uid_requests", user, 2, 4, "", func(p *places, n int) error {
			w, err := p.more()
			if err != nil {
				return err
			}
			return w.request(`{"id":"1","type":"subscribe"}`)
		}},
		{"budgets.per_uid_streams", user, 2, 3, "", func(p *places, n int) error {
			w, err := p.more()
			if err != nil {
				return err
			}
			return w.request(`{"id":"1","type":"stream","target":"self","protocol":"Echo"}`)
		}},
		{"budgets.per_uid_buffered_bytes", user, 2, 4, "MiB", (*places).buffered},
		{"budgets.node_buffered_bytes", "all users of this machine", 2, 4, "MiB", (*places).buffered},
	}
}

// buffered takes 1 MiB less a little: of the line of a listener, which stays in flight.
func (p *places) buffered(n int) error {
	w, err := p.more()
	if err != nil {
		return err
	}
	return w.request(fmt.Sprintf(`{"id":"1","type":"listen","protocol":"P%d","data":{"kinds":["call"]%s}}`, n, strings.Repeat(" ", 1000<<10)))
}

// fill uses a budget up and returns how many places it had, and the refusal.
func (b budget) fill(socket string) (n int, refusal *api.Error, err error) {
	p := &places{socket: socket}
	defer p.close()
	for ; n < 100; n++ {
		if err := b.use(p, n); errors.As(err, &refusal) {
			return n, refusal, nil
		} else if err != nil {
			return n, nil, err
		}
	}
	return n, nil, errors.New("it is without bound")
}

// Each refusal names the budget, whose it is and the setting; with that very
// setting in fastn.toml and a reload, as the hint says, the refusal moves.
func TestLocalBudgetSettings(t *testing.T) {
	d := startSystem(t)
	user := peercred.UserName(attackerUID)
	named := regexp.MustCompile(`^over budget: (.+) ha(?:s|ve) (\d+) of (\d+) [a-z ]+ \(([a-z_.]+)\)`)
	for _, b := range budgets(user) {
		t.Run(b.setting, func(t *testing.T) {
			set(t, d, b.setting, b.small, b.unit)
			member := runUser(t, d, attackerUID, "fill "+b.setting)
			check := func(limit int) (setting string) {
				t.Helper()
				var got filled
				member.askJSON(t, "fill", &got)
				m := named.FindStringSubmatch(got.Message)
				if m == nil || m[1] != b.owner || m[4] != b.setting {
					t.Fatalf("refused with %q", got.Message)
				}
				// Connections have others beside these: of the test itself, and just closed.
				if crowded := strings.Contains(b.setting, "connections"); !crowded && got.Places != limit || crowded && m[3] != fmt.Sprint(limit) {
					t.Errorf("%d places, %d are set: %s", got.Places, limit, got.Message)
				}
				if !strings.Contains(got.Hint, "raise "+m[4]+" in fastn.toml") || !strings.Contains(got.Hint, "reload") {
					t.Errorf("the hint is %q", got.Hint)
				}
				// To raise it needs somebody else: this the user can do himself.
				if holder := fmt.Sprintf("yours are held by pid %d (", member.pid); b.setting == "budgets.per_uid_connections" && !strings.Contains(got.Hint, holder) {
					t.Errorf("the hint is %q, want %q", got.Hint, holder)
				}
				return m[4]
			}
			set(t, d, check(b.small), b.larger, b.unit)
			check(b.larger)
		})
	}
}

// set changes one setting and reloads.
func set(t *testing.T, d *process.Daemon, setting string, n int, unit string) {
	t.Helper()
	table, key, _ := strings.Cut(setting, ".")
	value := fmt.Sprint(n)
	if unit != "" {
		value = fmt.Sprintf("%q", value+unit)
	}
	if err := d.Configure("["+table+"]", key+" = "+value); err != nil {
		t.Fatal(err)
	}
	if err := d.Client.Verb(t.Context(), api.VerbDaemonReload, nil, nil); err != nil {
		t.Fatal(err)
	}
}

// filled is what a user met who used a budget up.
type filled struct {
	Places  int
	Message string
	Hint    string
}

// fillBudget tells how far the budget of that setting went.
func fillBudget(setting, socket string) (filled, error) {
	if err := givenBack(socket); err != nil {
		return filled{}, err
	}
	for _, b := range budgets("") {
		if b.setting == setting {
			n, refusal, err := b.fill(socket)
			if err != nil {
				return filled{}, err
			}
			return filled{n, refusal.Message, refusal.Hint}, nil
		}
	}
	return filled{}, fmt.Errorf("no budget %q", setting)
}
