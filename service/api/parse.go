package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
)

// requestKeys are the members that a request line may have.
var requestKeys = []string{"id", "type", "target", "protocol", "instance", "from",
	"timeout_ms", "stream", "incoming", "message_id", "expires_s", "data", "error"}

// ParseRequest reads one line, without its newline. The error is an *Error of
// CodeBadRequest that says where the fault is; then id is the request's id if
// it could be read (ok), so that the error can be answered to it.
func ParseRequest(line []byte) (r *Request, id string, ok bool, err error) {
	fields, err := scanObject(line)
	r = &Request{}
	for _, f := range fields {
		if f.key == "id" && f.value[0] == '"' && decode(f.value, &r.ID) == nil && len(r.ID) <= MaxID {
			id, ok = r.ID, true
		}
	}
	if err != nil {
		return nil, id, ok, badRequest("%v", err)
	}
	for _, f := range fields {
		if err := r.set(f); err != nil {
			return nil, id, ok, err
		}
	}
	if !ok {
		return nil, "", false, badRequest(`a request needs "id", a string of at most %d bytes`, MaxID)
	}
	if r.Type == "" {
		return nil, id, true, badRequest(`a request needs "type"`)
	}
	return r, id, true, nil
}

func badRequest(format string, args ...any) *Error {
	return Errorf(CodeBadRequest, format, args...)
}

func (r *Request) set(f field) error {
	var dst any
	switch f.key {
	case "id":
		return nil
	case "type":
		dst = &r.Type
	case "target":
		dst = &r.Target
	case "protocol":
		dst = &r.Protocol
	case "instance":
		dst = &r.Instance
	case "from":
		dst = &r.From
	case "timeout_ms":
		dst = &r.TimeoutMS
	case "stream":
		dst = &r.Stream
	case "incoming":
		dst = &r.Incoming
	case "message_id":
		dst = &r.MessageID
	case "expires_s":
		dst = &r.ExpiresS
	case "error":
	case "data":
		if len(f.value) > MaxPayload {
			return Errorf(CodeTooLarge, `"data" has %d bytes, the limit is %d`, len(f.value), MaxPayload)
		}
		r.Data = f.value
		return nil
	default:
		return badRequest("unknown member %q; a request has %s", Shorten(f.key), strings.Join(requestKeys, ", "))
	}
	if bytes.Equal(f.value, []byte("null")) {
		return badRequest("%q may not be null", f.key)
	}
	if f.key == "error" {
		var e programError
		err := decodeObject(f.value, &e, `"error"`)
		r.Error = &Error{Code: e.Code, Message: e.Message, Hint: e.Hint}
		return err
	}
	if n, ok := dst.(*int64); ok && beyondInt64(f.value) {
		*n = math.MaxInt64
		return nil
	}
	if err := decode(f.value, dst); err != nil {
		want := "a string"
		switch f.key {
		case "timeout_ms":
			want = "a whole number of milliseconds"
		case "expires_s":
			want = "a whole number of seconds"
		}
		return badRequest("%q must be %s", f.key, want)
	}
	if n, ok := dst.(*int64); ok && *n <= 0 {
		return badRequest("%q must be more than 0", f.key)
	}
	return nil
}

// beyondInt64 tells a whole number, written without an exponent, that is larger than
// any int64: for times it counts as their bound, as all above it do.
func beyondInt64(value []byte) bool {
	if len(value) < 19 || bytes.ContainsFunc(value, func(c rune) bool { return c < '0' || c > '9' }) {
		return false
	}
	_, err := strconv.ParseInt(string(value), 10, 64)
	return errors.Is(err, strconv.ErrRange)
}

// decode is json.Unmarshal for text that was scanned; most strings have no escapes.
func decode(value []byte, dst any) error {
	if s, ok := dst.(*string); ok && value[0] == '"' && bytes.IndexByte(value, '\\') < 0 {
		*s = string(value[1 : len(value)-1])
		return nil
	}
	return json.Unmarshal(value, dst)
}

// ValidUUID takes the textual form of RFC 9562 §4, in either case.
func ValidUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f'):
			return false
		}
	}
	return true
}

// CanonicalUUID is a UUID in lower case, as which it is kept and compared: either
// case names the same (RFC 9562 §4). What is none stays as it is.
func CanonicalUUID(s string) string {
	if !ValidUUID(s) {
		return s
	}
	return strings.ToLower(s)
}

// ValidName checks a name of an identity, contact or instance: 1 to MaxName
// bytes of letters, digits, '-', '_' and '.', of which the first is a letter
// or digit. what is used in the error.
func ValidName(what, name string) error {
	if name == "" {
		return badRequest("%s is empty", what)
	}
	if len(name) > MaxName {
		return badRequest("%s has %d bytes, the limit is %d", what, len(name), MaxName)
	}
	for i, c := range name {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			continue
		}
		if i > 0 && (c == '-' || c == '_' || c == '.') {
			continue
		}
		return badRequest("%s %q may have letters, digits, '-', '_' and '.', the first a letter or digit", what, Shorten(name))
	}
	return nil
}

// ValidProtocol checks a protocol's name: 1 to MaxProtocol bytes of printable
// ASCII without spaces.
func ValidProtocol(p string) error {
	if p == "" {
		return badRequest(`"protocol" is missing`)
	}
	if len(p) > MaxProtocol {
		return badRequest("the protocol's name has %d bytes, the limit is %d", len(p), MaxProtocol)
	}
	if i := slices.IndexFunc([]byte(p), func(c byte) bool { return c <= ' ' || c > '~' }); i >= 0 {
		if p[i] == ' ' {
			return badRequest("the protocol's name %q has a space at byte %d", Shorten(p), i)
		}
		return badRequest("the protocol's name has a character that is not printable ASCII at byte %d", i)
	}
	return nil
}
