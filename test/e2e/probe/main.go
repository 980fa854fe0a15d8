// Probe speaks the control socket's lines inside a machine under test, one
// level below what the fastn command lets through.
//
//	probe ask          each line of standard input is {"request":{…},"file":"path"};
//	                   sends the request, with the file opened as its descriptor
//	                   if one is named, and prints the answer's line
//	probe burst N      N clients connect at once, each makes one Echo call;
//	                   prints how many answers were right
//	probe hold         connects and prints "ready"; each line of standard input
//	                   makes an Echo call on that connection and prints "answered",
//	                   but "wait" waits until the daemon ends the connection, and
//	                   prints "closed"
//	probe lines        one connection: sends the lines of standard input as they
//	                   are and prints those of the daemon; ends with its input
//	probe hammer       until standard input ends: connect, call Echo, close;
//	                   prints how many calls were answered and how many were cut
//	                   off or sent away by a daemon that was stopping
//
// and, as a program that uses service/client:
//
//	probe calls        one client; each line of standard input names a protocol of
//	                   the user's own to call; prints "sent", then what became of it,
//	                   "ok" or the error's code and message
//	probe crowd N      until standard input ends: N loops of a new client and one
//	                   call of Echo; prints, as JSON, how often each outcome came
//	probe mail PEER CLIENTS N
//	                   CLIENTS programs, every other one without service/client,
//	                   each send N numbered texts to PEER, and go on until standard
//	                   input ends; what is not acknowledged is sent again; prints
//	                   "ready" after some, and then, as JSON, what each sent
//	probe wear PEER N  N rounds of calls to PEER, streams, listeners, and of
//	                   connections that break off; prints "worn"
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	socket      = "/run/fastn/daemon.sock"
	answerLimit = 30 * time.Second
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "ask":
		return ask()
	case len(args) == 2 && args[0] == "burst":
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return burst(n)
	case len(args) == 1 && args[0] == "hold":
		return hold()
	case len(args) == 1 && args[0] == "lines":
		return lines()
	case len(args) == 1 && args[0] == "hammer":
		return hammer()
	case len(args) == 1 && args[0] == "calls":
		return calls()
	case len(args) == 2 && args[0] == "crowd":
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return crowd(n)
	case len(args) == 4 && args[0] == "mail":
		clients, err := strconv.Atoi(args[2])
		n, err2 := strconv.Atoi(args[3])
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		return mail(args[1], clients, n)
	case len(args) == 3 && args[0] == "wear":
		n, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		return wear(args[1], n)
	}
	return errors.New("usage: probe ask | burst N | hold | lines | hammer | calls | crowd N | mail PEER CLIENTS N | wear PEER N")
}

// raw is a connection without a library.
type raw struct {
	conn *net.UnixConn
	in   *bufio.Reader
}

func dial() (*raw, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return &raw{conn: conn, in: bufio.NewReaderSize(conn, 1<<20)}, nil
}

// do sends one line and returns the next one from the daemon.
func (c *raw) do(line, oob []byte) (string, error) {
	if err := c.conn.SetDeadline(time.Now().Add(answerLimit)); err != nil {
		return "", err
	}
	if _, _, err := c.conn.WriteMsgUnix(append(line, '\n'), oob, nil); err != nil {
		return "", err
	}
	answer, err := c.in.ReadString('\n')
	return strings.TrimSuffix(answer, "\n"), err
}

// echo makes one call and checks its answer.
func (c *raw) echo(text string) error {
	answer, err := c.do(fmt.Appendf(nil, `{"id":%q,"type":"call","target":"self","protocol":"Echo","data":{"message":%q}}`, text, text), nil)
	if err != nil {
		return err
	}
	if want := fmt.Sprintf(`{"id":%q,"status":"ok","data":{"echoed":"Echo: %s"}}`, text, text); answer != want {
		return fmt.Errorf("got %s, want %s", answer, want)
	}
	return nil
}

func ask() error {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 2<<20)
	for lines.Scan() {
		var in struct {
			Request json.RawMessage
			File    string
		}
		if err := json.Unmarshal(lines.Bytes(), &in); err != nil {
			return err
		}
		answer, err := askOne(in.Request, in.File)
		if err != nil {
			return fmt.Errorf("%s: %w", in.Request, err)
		}
		fmt.Println(answer)
	}
	return lines.Err()
}

// askOne uses a connection of its own: some requests are the last on theirs.
func askOne(request []byte, file string) (string, error) {
	c, err := dial()
	if err != nil {
		return "", err
	}
	defer c.conn.Close()
	if file == "" {
		return c.do(request, nil)
	}
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return c.do(request, syscall.UnixRights(int(f.Fd())))
}

func burst(n int) error {
	start := make(chan struct{})
	results := make(chan error, n)
	for i := range n {
		go func() {
			<-start
			c, err := dial()
			if err != nil {
				results <- err
				return
			}
			defer c.conn.Close()
			results <- c.echo(fmt.Sprint("client ", i))
		}()
	}
	close(start)
	right := 0
	var failed error
	for range n {
		if err := <-results; err != nil {
			failed = err
			continue
		}
		right++
	}
	fmt.Println(right)
	return failed
}

func hold() error {
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.conn.Close()
	if err := c.echo("first"); err != nil {
		return err
	}
	fmt.Println("ready")
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(os.Stdin); s.Scan(); {
			lines <- s.Text()
		}
	}()
	for line := range lines {
		if line == "wait" {
			return c.end()
		}
		if err := c.echo(line); err != nil {
			return err
		}
		fmt.Println("answered")
	}
	return nil
}

func lines() error {
	c, err := dial()
	if err != nil {
		return err
	}
	go func() {
		io.Copy(c.conn, os.Stdin)
		c.conn.Close()
	}()
	_, err = io.Copy(os.Stdout, c.in)
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}

// end waits until the daemon ends the connection.
func (c *raw) end() error {
	if err := c.conn.SetDeadline(time.Now().Add(answerLimit)); err != nil {
		return err
	}
	if _, err := c.in.ReadByte(); errors.Is(err, os.ErrDeadlineExceeded) || err == nil {
		return fmt.Errorf("the connection was not ended: %v", err)
	}
	fmt.Println("closed")
	return nil
}

func hammer() error {
	stop := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	fmt.Println("ready")
	answered, cut := 0, 0
	for n := 0; ; n++ {
		select {
		case <-stop:
			fmt.Println(answered, cut)
			return nil
		default:
		}
		c, err := dial()
		if err != nil {
			return err
		}
		err = c.echo(fmt.Sprint("call ", n))
		c.conn.Close()
		switch {
		case err == nil:
			answered++
		case stopping(err):
			cut++
		default:
			return err
		}
	}
}

// stopping tells that a request came to a daemon that was just about to stop; a
// client library then tries again.
func stopping(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		strings.Contains(err.Error(), `"code":"unavailable"`)
}
