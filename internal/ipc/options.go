package ipc

import "time"

// Options are the limits of the socket. The zero value of a field is its default.
type Options struct {
	// WriteTimeout is how long a client may leave its full queue of answers
	// unread before it is cut off, and any that are queued before "streaming". 10 s.
	WriteTimeout time.Duration
	// WriteQueue is how many bytes of answers may wait for a client before those
	// who answer it wait too. 256 KiB.
	WriteQueue int
	// DrainTimeout bounds how long Close waits for answers in flight. 5 s.
	DrainTimeout time.Duration
	// AcceptTimeout is how long an incoming stream waits for accept. 30 s.
	AcceptTimeout time.Duration
	// ListenerQueue bounds incoming calls and streams that a listener has been
	// told of and not yet answered or accepted. Half of it is for callers that have
	// less than a quarter. 256.
	ListenerQueue int
	// StreamResults bounds the ends of streams kept for each uid. 1,024.
	StreamResults int
	// GoneGrace is how long a stream whose client has ended it cleanly and is gone
	// may take to deliver its last bytes. 2 min.
	GoneGrace time.Duration
	// LingerTimeout is how long a connection that is closed for an error is read
	// from, so that the client comes to see the error. 1 s.
	LingerTimeout time.Duration
}

func (o Options) withDefaults() Options {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&o.WriteTimeout, 10*time.Second)
	set(&o.DrainTimeout, 5*time.Second)
	set(&o.AcceptTimeout, 30*time.Second)
	set(&o.GoneGrace, 2*time.Minute)
	set(&o.LingerTimeout, time.Second)
	if o.WriteQueue <= 0 {
		o.WriteQueue = 256 << 10
	}
	if o.ListenerQueue <= 0 {
		o.ListenerQueue = 256
	}
	if o.StreamResults <= 0 {
		o.StreamResults = 1024
	}
	return o
}
