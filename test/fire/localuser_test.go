package fire

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/test/process"
)

// userRole makes this test binary a program of another user: a bystander, or an
// attack by its name. userSocket is where the daemon listens.
const (
	userRole   = "FASTN_FIRE_ROLE"
	userSocket = "FASTN_FIRE_SOCKET"
	bystander  = "bystander"
)

// patience bounds every wait here; what it bounds takes milliseconds when nothing
// is wrong and the machine is idle.
const patience = time.Minute

// Users of a system's daemon. They have no names.
const (
	attackerUID  = 54001
	bystanderUID = 54002
)

// userMain is the program of another user. It reads words from standard input and
// answers each with one line.
func userMain(role string) int {
	var err error
	if role == bystander {
		err = measureOnDemand(os.Stdin, os.Stdout)
	} else if setting, ok := strings.CutPrefix(role, "fill "); ok {
		err = answerWords(os.Stdin, os.Stdout, func(string) (any, error) { return fillBudget(setting, os.Getenv(userSocket)) })
	} else if err = takeFiles(); err == nil {
		err = attackOnDemand(role, os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Println("error: " + strings.ReplaceAll(err.Error(), "\n", " "))
		return 1
	}
	return 0
}

// Real-time priorities of a bystander, the daemon and an attack: what else runs on
// the machine does not show, and the kernel shares the processors among the users'
// own programs. What is left to measure is how the daemon shares itself.
const (
	bystanderPriority = 30
	daemonPriority    = 20
	attackPriority    = 10
)

// atPriority starts a process at a real-time priority, or as it is where that is
// not permitted.
func atPriority(t *testing.T, priority uint32, start func() error) error {
	runtime.LockOSThread() // what is set for a thread, the program that it starts inherits
	defer runtime.UnlockOSThread()
	set := func(policy, priority uint32) error {
		return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Priority: priority}, 0)
	}
	if err := set(unix.SCHED_RR, priority); err != nil {
		t.Logf("no real-time priorities, so the work of all programs counts: %v", err)
		return start()
	}
	return errors.Join(start(), set(unix.SCHED_NORMAL, 0))
}

// takeFiles lets this process have all the descriptors that it may have.
func takeFiles() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}

// attackOnDemand begins the attack at "go", says "on" when it is under way and
// ends it at "stop"; "done" is said when nothing of it is left.
func attackOnDemand(name string, in io.Reader, out io.Writer) error {
	attack, ok := attacks()[name]
	if !ok {
		return fmt.Errorf("no attack %q", name)
	}
	words := bufio.NewScanner(in)
	var step atomic.Int64
	for words.Scan() { // "go"
		ctx, cancel := context.WithCancel(context.Background())
		s := &siege{ctx: ctx, socket: os.Getenv(userSocket), on: make(chan struct{}), step: &step}
		ended := make(chan error, 1)
		go func() { ended <- attack(s) }()
		var err error
		select {
		case <-s.on:
			fmt.Fprintln(out, "on")
			words.Scan() // "stop"
			cancel()
			err = <-ended
		case err = <-ended:
			err = errors.Join(errors.New("the attack ended before it was told to"), err)
		}
		cancel()
		if err = errors.Join(err, givenBack(s.socket)); err != nil {
			return err
		}
		fmt.Fprintf(out, "done %d\n", s.times.Load())
	}
	return nil
}

// givenBack waits until all that the user has in use is the request that asks for it.
func givenBack(socket string) error {
	w, err := dialLine(socket)
	if err != nil {
		return err
	}
	defer func() { w.Close() }()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		a, err := w.askStatus()
		if err != nil || a.Code == api.CodeOverBudget {
			// The daemon has not seen the ends of all connections yet.
			w.Close()
			if w, err = dialLine(socket); err != nil {
				return err
			}
		}
		var status api.Status
		if err := json.Unmarshal(a.Data, &status); err == nil && inUse(status) == [4]int64{1, 1, 0, 0} {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the budgets are not given back: %+v, %s", status.Budgets, a.Data)
		}
	}
}

func (w *lineConn) askStatus() (api.Response, error) {
	if err := w.send(`{"id":"1","type":"daemon.status"}` + "\n"); err != nil {
		return api.Response{}, err
	}
	return w.answer()
}

// inUse are connections, requests, streams and bytes.
func inUse(s api.Status) (used [4]int64) {
	for i, b := range s.Budgets {
		if i < len(used) {
			used[i] = b.Used
		}
	}
	return used
}

// user is such a program, seen from the test.
type user struct {
	pid int
	in  io.Writer
	out *bufio.Reader
}

// runUser starts a program of uid, a member of group "fastn", until the test ends.
func runUser(t *testing.T, d *process.Daemon, uid uint32, role string) *user {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), userRole+"="+role, userSocket+"="+d.Socket)
	cmd.Stderr = os.Stderr
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{process.Group}}}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	priority := uint32(attackPriority)
	if role == bystander {
		priority = bystanderPriority
	}
	if err := atPriority(t, priority, cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if t.Failed() {
			_ = cmd.Process.Kill() // it may be what hangs
		}
		if err := cmd.Wait(); err != nil && !t.Failed() {
			t.Errorf("%s: %v", role, err)
		}
	})
	return &user{pid: cmd.Process.Pid, in: in, out: bufio.NewReader(out)}
}

// ask says a word and returns the line that answers it.
func (u *user) ask(t *testing.T, word string) string {
	t.Helper()
	if _, err := io.WriteString(u.in, word+"\n"); err != nil {
		t.Fatal(err)
	}
	line, err := u.out.ReadString('\n')
	if err != nil || strings.HasPrefix(line, "error: ") {
		t.Fatalf("after %q: %s %v", word, line, err)
	}
	return strings.TrimSpace(line)
}

// latencies are how long a bystander's requests took.
type latencies struct {
	Warm  []time.Duration // calls on an open connection
	Fresh []time.Duration // connect, call, close
}

func (l *latencies) add(m latencies) {
	l.Warm, l.Fresh = append(l.Warm, m.Warm...), append(l.Fresh, m.Fresh...)
}

// measure has the bystander make n calls of each kind.
func (u *user) measure(t *testing.T, n int) latencies {
	t.Helper()
	var l latencies
	u.askJSON(t, fmt.Sprint(n), &l)
	return l
}

// askJSON says a word and reads the JSON that answers it.
func (u *user) askJSON(t *testing.T, word string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(u.ask(t, word)), v); err != nil {
		t.Fatal(err)
	}
}

// measureOnDemand reads numbers and answers each with the latencies of as many
// calls. Every answer is checked.
func measureOnDemand(in io.Reader, out io.Writer) error {
	open, err := dialLine(os.Getenv(userSocket))
	if err != nil {
		return err
	}
	defer open.Close()
	return answerWords(in, out, func(word string) (any, error) {
		var n int
		if _, err := fmt.Sscan(word, &n); err != nil {
			return nil, err
		}
		var l latencies
		for i := range n {
			if err := open.SetDeadline(time.Now().Add(patience)); err != nil {
				return nil, err
			}
			begin := time.Now()
			if err := open.echo(i); err != nil {
				return nil, err
			}
			l.Warm = append(l.Warm, time.Since(begin))
			time.Sleep(time.Millisecond / 2) // as a program does that has other work too
			begin = time.Now()
			if err := freshEcho(i); err != nil {
				return nil, err
			}
			l.Fresh = append(l.Fresh, time.Since(begin))
			time.Sleep(time.Millisecond / 2)
		}
		return l, nil
	})
}

// answerWords answers each word with a line of JSON.
func answerWords(in io.Reader, out io.Writer, answer func(word string) (any, error)) error {
	words := bufio.NewScanner(in)
	for words.Scan() {
		v, err := answer(words.Text())
		if err != nil {
			return err
		}
		line, err := json.Marshal(v)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s\n", line)
	}
	return nil
}

func freshEcho(i int) error {
	w, err := dialLine(os.Getenv(userSocket))
	if err != nil {
		return err
	}
	defer w.Close()
	return w.echo(i)
}
