package api

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"
)

// Request is one line from a client. Which fields a type uses is told in
// PROTOCOL.md; a field that the type does not use is refused.
type Request struct {
	ID        string          `json:"id"`
	Type      string          `json:"type"`
	Target    string          `json:"target,omitempty"`
	Protocol  string          `json:"protocol,omitempty"`
	Instance  string          `json:"instance,omitempty"`
	From      string          `json:"from,omitempty"`
	TimeoutMS int64           `json:"timeout_ms,omitempty"`
	Stream    string          `json:"stream,omitempty"`     // UUID of a stream, chosen by the client
	Incoming  string          `json:"incoming,omitempty"`   // id told to a listener
	MessageID string          `json:"message_id,omitempty"` // UUID of a message, chosen by the client
	ExpiresS  int64           `json:"expires_s,omitempty"`  // life of a message; DefaultMessageLife if 0
	Data      json.RawMessage `json:"data,omitempty"`       // the same JSON text is passed on
	Error     *Error          `json:"error,omitempty"`      // of a reply that fails
}

// programError is what an Error has in a request.
type programError struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// Timeout is the time allowed for r: DefaultTimeout if none is given, MaxTimeout
// if more is.
func (r *Request) Timeout() time.Duration {
	if r.TimeoutMS <= 0 {
		return DefaultTimeout
	}
	// Bounded first: the product may be too large for an int64.
	return time.Duration(min(r.TimeoutMS, MaxTimeout.Milliseconds())) * time.Millisecond
}

// Response is one line from the daemon. With StatusError, Data is the message
// as a JSON string.
type Response struct {
	ID     *string         `json:"id"`
	Status string          `json:"status"`
	Data   json.RawMessage `json:"data,omitempty"`
	Code   Code            `json:"code,omitempty"`
	Hint   string          `json:"hint,omitempty"`
	Peer   string          `json:"peer,omitempty"`
}

// Err is the error that r carries, nil unless its status is StatusError.
func (r *Response) Err() error {
	if r.Status != StatusError {
		return nil
	}
	e := &Error{Code: r.Code, Hint: r.Hint, Peer: r.Peer}
	if json.Unmarshal(r.Data, &e.Message) != nil {
		e.Message = string(r.Data)
	}
	return e
}

// AppendAnswer appends the line `{"id":…,"status":…,"data":…}` and a newline.
// data must be valid JSON and is copied as it is, but for newlines between
// tokens, which become spaces: a line stays one line. Empty data is left out.
func AppendAnswer(b []byte, id, status string, data []byte) []byte {
	b = appendHead(b, id, false, status)
	if len(data) > 0 {
		b = append(b, `,"data":`...)
		b = appendOneLine(b, data)
	}
	return append(b, '}', '\n')
}

// AppendError appends the line of an error. noID marks an answer to a line
// whose id could not be read: its id is null.
func AppendError(b []byte, id string, noID bool, e *Error) []byte {
	b = appendHead(b, id, noID, StatusError)
	b = append(b, `,"data":`...)
	b = AppendString(b, e.Message)
	b = append(b, `,"code":`...)
	b = AppendString(b, string(e.Code))
	if e.Hint != "" {
		b = append(b, `,"hint":`...)
		b = AppendString(b, e.Hint)
	}
	if e.Peer != "" {
		b = append(b, `,"peer":`...)
		b = AppendString(b, e.Peer)
	}
	return append(b, '}', '\n')
}

func appendHead(b []byte, id string, noID bool, status string) []byte {
	b = append(b, `{"id":`...)
	if noID {
		b = append(b, "null"...)
	} else {
		b = AppendString(b, id)
	}
	b = append(b, `,"status":`...)
	return AppendString(b, status)
}

// appendOneLine copies JSON text; raw CR and LF can only stand between tokens.
func appendOneLine(b, data []byte) []byte {
	if bytes.IndexByte(data, '\n') < 0 && bytes.IndexByte(data, '\r') < 0 {
		return append(b, data...)
	}
	for _, c := range data {
		if c == '\n' || c == '\r' {
			c = ' '
		}
		b = append(b, c)
	}
	return b
}

// AppendString appends s as a JSON string. Bytes that are not UTF-8 become U+FFFD.
func AppendString(b []byte, s string) []byte {
	plain := true
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			plain = false
			break
		}
	}
	if plain {
		return append(append(append(b, '"'), s...), '"')
	}
	text, err := Marshal(s)
	if err != nil { // cannot be for a string
		return strconv.AppendQuoteToASCII(b, s)
	}
	return append(b, text...)
}

// Marshal is json.Marshal that leaves HTML as it is: nobody puts these texts into a
// page, and people read them.
func Marshal(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// AppendRequest appends r as one line with its newline.
func AppendRequest(b []byte, r *Request) []byte {
	field := func(name, value string) {
		if value != "" {
			b = append(b, `,"`...)
			b = append(b, name...)
			b = append(b, `":`...)
			b = AppendString(b, value)
		}
	}
	b = append(b, `{"id":`...)
	b = AppendString(b, r.ID)
	field("type", r.Type)
	field("target", r.Target)
	field("protocol", r.Protocol)
	field("instance", r.Instance)
	field("from", r.From)
	if r.TimeoutMS != 0 {
		b = append(b, `,"timeout_ms":`...)
		b = strconv.AppendInt(b, r.TimeoutMS, 10)
	}
	field("stream", r.Stream)
	field("incoming", r.Incoming)
	if len(r.Data) > 0 {
		b = append(b, `,"data":`...)
		b = appendOneLine(b, r.Data)
	}
	field("message_id", r.MessageID)
	if r.ExpiresS != 0 {
		b = append(b, `,"expires_s":`...)
		b = strconv.AppendInt(b, r.ExpiresS, 10)
	}
	if r.Error != nil {
		own := programError{r.Error.Code, r.Error.Message, r.Error.Hint} // whose words it passes on is not told
		if e, err := json.Marshal(own); err == nil {
			b = append(append(b, `,"error":`...), e...)
		}
	}
	return append(b, '}', '\n')
}
