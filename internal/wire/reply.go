package wire

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/fastn-stack/fastnd/service/api"
)

// ReplyError makes the answer that carries err, CodeInternal if it is not an
// *api.Error; nil makes the answer "done". Long texts are cut.
func ReplyError(err error) *Reply {
	e := api.AsError(err)
	if e == nil {
		return &Reply{}
	}
	code := e.Code
	if code == "" {
		code = api.CodeInternal
	}
	return &Reply{Code: string(code), Message: clean(e.Message, MaxMessage), Hint: clean(e.Hint, MaxHint)}
}

// Err gives the *api.Error that a reply carries, nil if it carries none. Its
// texts come from another machine; they are made safe to print on a terminal.
func (r *Reply) Err() error {
	if r.GetCode() == "" {
		return nil
	}
	e := &api.Error{
		Code:    api.Code(r.GetCode()),
		Message: clean(r.GetMessage(), MaxMessage),
		Hint:    clean(r.GetHint(), MaxHint),
	}
	if e.Message == "" {
		e.Message = "the peer answered with " + r.GetCode()
	}
	return e
}

// NewOutcome makes the outcome that carries err; nil: it was taken.
func NewOutcome(err error) *Outcome {
	if err == nil {
		return &Outcome{}
	}
	r := ReplyError(err)
	return &Outcome{Code: r.Code, Message: clean(r.Message, MaxOutcome)}
}

// Err gives the *api.Error that an outcome carries, nil if the letter was taken.
func (o *Outcome) Err() error {
	return (&Reply{Code: o.GetCode(), Message: o.GetMessage()}).Err()
}

// clean makes s valid UTF-8 of at most most bytes, with a space for each
// character that is not printable; most is at least 10.
func clean(s string, most int) string {
	s = strings.Map(func(c rune) rune {
		if c == utf8.RuneError || !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, s)
	if len(s) <= most {
		return s
	}
	const more = "…"
	most -= len(more)
	for !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + more
}
