package identity

import (
	"errors"
	"fmt"
	"time"
)

// Why a delegation or ticket is refused; for use with errors.Is.
var (
	ErrMalformed   = errors.New("malformed")
	ErrKeyType     = errors.New("key type refused")
	ErrPayloadType = errors.New("payload type refused")
	ErrSigner      = errors.New("not signed by the identity it names")
	ErrExpired     = errors.New("expired")
	ErrFuture      = errors.New("issued in the future")
	ErrWrongNode   = errors.New("for another node")
	ErrSuperseded  = errors.New("revoked by a newer delegation")
)

// TimeError is a refusal that a wrong clock, here or there, may have caused.
// It is ErrExpired or ErrFuture to errors.Is.
type TimeError struct {
	Err             error     // ErrExpired or ErrFuture
	Now             time.Time // the receiver's clock, to be told to the sender
	Issued, Expires time.Time // what the refused thing says of itself
}

func (e *TimeError) Error() string {
	const layout = time.RFC3339
	if errors.Is(e.Err, ErrFuture) {
		return fmt.Sprintf("%v: issued %s, the clock here says %s",
			e.Err, e.Issued.UTC().Format(layout), e.Now.UTC().Format(layout))
	}
	return fmt.Sprintf("%v: valid until %s, the clock here says %s",
		e.Err, e.Expires.UTC().Format(layout), e.Now.UTC().Format(layout))
}

func (e *TimeError) Unwrap() error { return e.Err }

// MaxSkew is how far in the future a delegation may have been issued.
const MaxSkew = 5 * time.Minute

// checkTime is half-open: at Expires itself a thing has expired.
func checkTime(issued, expires, now time.Time) error {
	switch {
	case issued.After(now.Add(MaxSkew)):
		return &TimeError{Err: ErrFuture, Now: now, Issued: issued, Expires: expires}
	case !now.Before(expires):
		return &TimeError{Err: ErrExpired, Now: now, Issued: issued, Expires: expires}
	}
	return nil
}
