package api

import (
	"errors"
	"fmt"
)

// Code names the kind of an error. Codes cross the socket and the network
// unchanged; programs decide by them, people read Message and Hint.
type Code string

const (
	CodeBadRequest          Code = "bad_request"          // the request is malformed; nothing was done
	CodeNotFound            Code = "not_found"            // no such object, or not one of the caller's
	CodeConflict            Code = "conflict"             // the name or id is taken, or has other content
	CodeNotPermitted        Code = "not_permitted"        // refused by a rule on this machine
	CodeRefused             Code = "refused"              // refused by the other side; strangers are told no more
	CodePeerUnreachable     Code = "peer_unreachable"     // no path to a node of the target
	CodeProtocolUnavailable Code = "protocol_unavailable" // allowed, but nobody serves it now
	CodeOverBudget          Code = "over_budget"          // a limit was reached; Message names it
	CodeClockSkew           Code = "clock_skew"           // the clocks of the two nodes disagree
	CodeExpired             Code = "expired"              // a ticket or delegation is past its time, or used
	CodeTimeout             Code = "timeout"              // no answer within the time allowed
	CodeCancelled           Code = "cancelled"            // the caller went away or asked to stop
	CodeStalled             Code = "stalled"              // a stream was reset because its reader stopped reading
	CodeAborted             Code = "aborted"              // a stream ended by a reset, not by its end
	CodeLocked              Code = "locked"               // the daemon could not start its node; no peer-to-peer service
	CodeOffline             Code = "offline"              // the identity is not served now
	CodeTooLarge            Code = "too_large"            // longer than its limit
	CodeUnsupported         Code = "unsupported"          // unknown verb or version
	CodeStorage             Code = "storage"              // the daemon's disk is full, read-only or failing; nothing was changed
	CodeInternal            Code = "internal"             // a defect; see the journal
	CodeHandlerFailed       Code = "handler_failed"       // the serving program answered with an error
	CodePending             Code = "pending"              // a message waits: not served there, or not granted, so far

	// The daemon says outcome_unknown of the far side, service/client of the daemon.
	CodeUnavailable    Code = "unavailable"     // the daemon cannot be reached; nothing was sent
	CodeOutcomeUnknown Code = "outcome_unknown" // the connection broke after sending
)

// Error is an error as users and programs see it. Message is lower case,
// says what happened and why; Hint, if any, says what to do next.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	// Peer is the id52 of the identity that was asked, where Message and Hint are
	// the words of its program or machine; empty where they are the daemon's own.
	Peer string `json:"peer,omitempty"`
}

func (e *Error) Error() string { return e.Message }

// Is matches errors of the same code, so that errors.Is(err, &Error{Code: c}) works.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Message == ""
}

// Errorf makes an Error with a formatted message.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithHint returns a copy of e that carries the hint.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// CodeOf tells the code of err: "" for nil, CodeInternal for what is not an Error.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}

// AsError turns any error into an *Error; nil stays nil. Errors that are not
// of this package become CodeInternal with their text.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: CodeInternal, Message: err.Error()}
}

// Refusal is the constant answer to strangers: the same for an absent
// identity, an absent protocol and a missing grant.
func Refusal() *Error {
	return &Error{Code: CodeRefused, Message: "refused by the peer",
		Hint: "ask the other side to add you as a contact, or to grant you this protocol"}
}

// IsRefusal tells whether err is the constant answer to strangers.
func IsRefusal(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && *e == *Refusal()
}
