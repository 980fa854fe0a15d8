package wire

import (
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/fastn-stack/fastnd/service/api"
)

// Numbers of the fields of Frame's oneof.
const (
	firstBody = 3
	lastBody  = 10
)

const (
	keySize = 32
	// maxDelegation bounds a delegation; today's have about 200 bytes.
	maxDelegation = 4 << 10
	maxTrace      = 128
	maxCode       = 64
	// MaxMessage and MaxHint bound the texts of a Reply, in bytes.
	MaxMessage = 4 << 10
	MaxHint    = 1 << 10
	// MaxLetters bounds the letters of a Deliver.
	MaxLetters = 256
	// MaxOutcome bounds the text of an Outcome, in bytes: those of MaxLetters fit
	// into a header.
	MaxOutcome = 160
)

// Validate checks everything about a frame that needs no key and no memory:
// one body, sizes, and that texts are printable. Its errors wrap ErrMalformed.
func (f *Frame) Validate() error {
	if f.PayloadSize > api.MaxPayload {
		return fmt.Errorf("%w: a payload of %d bytes, at most %d are allowed", ErrTooLarge, f.PayloadSize, api.MaxPayload)
	}
	switch b := f.Body.(type) {
	case *Frame_Open:
		return b.Open.validate()
	case *Frame_Reply:
		return b.Reply.validate()
	case *Frame_Whois:
		return firstErr(
			noPayload(f),
			checkBytes("from", b.Whois.GetFrom(), 1, maxDelegation),
			checkBytes("to", b.Whois.GetTo(), keySize, keySize))
	case *Frame_Redeem:
		return firstErr(
			noPayload(f),
			checkBytes("from", b.Redeem.GetFrom(), 1, maxDelegation),
			checkBytes("to", b.Redeem.GetTo(), keySize, keySize),
			checkBytes("secret", b.Redeem.GetSecret(), keySize, keySize))
	case *Frame_Cancel:
		return noPayload(f)
	case *Frame_Deliver:
		return b.Deliver.validate(int(f.PayloadSize))
	case *Frame_Available:
		return firstErr(
			noPayload(f),
			checkBytes("from", b.Available.GetFrom(), 1, maxDelegation),
			checkBytes("to", b.Available.GetTo(), keySize, keySize),
			checkText("protocol", b.Available.GetProtocol(), 1, api.MaxProtocol),
			checkText("instance", b.Available.GetInstance(), 0, api.MaxName))
	case *Frame_Aborted:
		code := b.Aborted.GetCode()
		return firstErr(noPayload(f), checkBytes("code", []byte(code), 1, maxCode), checkCode(code))
	}
	return fmt.Errorf("%w: no body that is known here", ErrMalformed)
}

func (o *Open) validate() error {
	if k := o.GetKind(); k != Kind_KIND_CALL && k != Kind_KIND_STREAM {
		return fmt.Errorf("%w: kind %d", ErrMalformed, k)
	}
	return firstErr(
		checkBytes("from", o.GetFrom(), 1, maxDelegation),
		checkBytes("to", o.GetTo(), keySize, keySize),
		checkText("protocol", o.GetProtocol(), 1, api.MaxProtocol),
		checkText("instance", o.GetInstance(), 0, api.MaxName),
		checkText("trace", o.GetTrace(), 0, maxTrace))
}

// validate leaves message and hint to Err, which makes them printable: a peer's
// odd wording must not turn an answer into a broken stream.
func (r *Reply) validate() error {
	if len(r.GetMessage()) > MaxMessage || len(r.GetHint()) > MaxHint {
		return fmt.Errorf("%w: the text of a reply is too long", ErrMalformed)
	}
	if n := len(r.GetOutcomes()); n > MaxLetters {
		return fmt.Errorf("%w: %d outcomes, at most %d are allowed", ErrMalformed, n, MaxLetters)
	}
	for _, o := range r.GetOutcomes() {
		if err := firstErr(checkCode(o.GetCode()), checkBytes("outcome", []byte(o.GetMessage()), 0, MaxOutcome)); err != nil {
			return err
		}
	}
	return firstErr(checkCode(r.GetCode()), checkBytes("delegation", r.GetDelegation(), 0, maxDelegation))
}

func checkCode(code string) error {
	for _, c := range []byte(code) {
		if (c < 'a' || c > 'z') && c != '_' {
			return fmt.Errorf("%w: a code has only a-z and _", ErrMalformed)
		}
	}
	return checkText("code", code, 0, maxCode)
}

// validate checks the letters, whose sizes add up to the payload.
func (d *Deliver) validate(payload int) error {
	if n := len(d.GetLetters()); n < 1 || n > MaxLetters {
		return fmt.Errorf("%w: %d letters, not 1 to %d", ErrMalformed, n, MaxLetters)
	}
	for _, l := range d.GetLetters() {
		if err := checkText("id of a letter", l.GetId(), 1, api.MaxID); err != nil {
			return err
		}
		if payload -= int(l.GetSize()); payload < 0 {
			break
		}
	}
	if payload != 0 {
		return fmt.Errorf("%w: the letters' sizes are not the payload's", ErrMalformed)
	}
	return firstErr(
		checkBytes("from", d.GetFrom(), 1, maxDelegation),
		checkBytes("to", d.GetTo(), keySize, keySize),
		checkText("protocol", d.GetProtocol(), 1, api.MaxProtocol),
		checkText("instance", d.GetInstance(), 0, api.MaxName))
}

func noPayload(f *Frame) error {
	if f.PayloadSize != 0 {
		return fmt.Errorf("%w: a payload where none may be", ErrMalformed)
	}
	return nil
}

func checkBytes(field string, b []byte, least, most int) error {
	if len(b) < least || len(b) > most {
		return fmt.Errorf("%w: %s has %d bytes, not %d to %d", ErrMalformed, field, len(b), least, most)
	}
	return nil
}

func checkText(field, s string, least, most int) error {
	if err := checkBytes(field, []byte(s), least, most); err != nil {
		return err
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%w: %s is not UTF-8", ErrMalformed, field)
	}
	for _, c := range s {
		if !unicode.IsPrint(c) {
			return fmt.Errorf("%w: %s has a character that cannot be shown", ErrMalformed, field)
		}
	}
	return nil
}

func firstErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
