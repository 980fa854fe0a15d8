package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fastn-stack/fastnd/service/api"
)

func TestScan(t *testing.T) {
	for text, fault := range map[string]string{
		`{}`: "", `[]`: "", ` [ 1 , "a" , null , true , false , {} ] `: "", `"😀"`: "", `"\ud83d\ude00"`: "", `"\u0000"`: "",
		`-0`: "", `-0.5e+10`: "", `1E5`: "", `12345678901234567890123`: "", `{"a":1,"b":{"a":2}}`: "", `[{"a":1},{"a":1}]`: "",
		``: "unexpected end", ` `: "unexpected end", `{`: "expected a key", `[`: "unexpected end", `[1`: "expected a comma", `{"a"`: "expected a colon",
		`{"a":1,}`: "expected a key", `[1,]`: "unexpected character", `[,1]`: "unexpected character", `{,}`: "expected a key", `{"a" 1}`: "expected a colon",
		`{a:1}`: "expected a key", `'a'`: "unexpected character", `nul`: "unexpected character", `nulll`: "unexpected text", `1 2`: "unexpected text", `{}{}`: "unexpected text",
		`01`: "unexpected text", `1.`: "bad number", `.5`: "unexpected character", `1e`: "bad number", `1e+`: "bad number", `-`: "bad number", `+1`: "unexpected character", `--1`: "bad number",
		`NaN`: "unexpected character", `Infinity`: "unexpected character", `/**/1`: "unexpected character",
		`"`: "string without an end", `"a`: "string without an end", `"\`: "string without an end", `"\x"`: "bad escape", `"\u12"`: "bad escape", `"\u12g4"`: "bad escape",
		"\"\n\"": "control character", "\"\x00\"": "control character", "\"\x7f\"": "",
		"\"\xff\"": "not valid UTF-8", "\"\xc0\xaf\"": "not valid UTF-8", "\"\xed\xa0\x80\"": "not valid UTF-8", "\"\xe2\x82\"": "not valid UTF-8", "\xef\xbb\xbf{}": "unexpected character",
		`"\ud800"`: "lone surrogate", `"\udc00"`: "lone surrogate", `"\ud800\u0041"`: "lone surrogate", `"\ud800\ud800"`: "lone surrogate", `"\udc00\ud800"`: "lone surrogate", `"\ud800x"`: "lone surrogate",
		`{"a":1,"a":1}`: "duplicate key", `{"a":1,"\u0061":1}`: "duplicate key", `{"é":1,"\u00e9":1}`: "duplicate key", `[[{"x":{"":1,"":2}}]]`: "duplicate key",
		`{"a":1,"A":1}`: "",
	} {
		err := api.Scan([]byte(text))
		switch {
		case fault == "" && err != nil:
			t.Errorf("%q: %v", text, err)
		case fault != "" && (err == nil || !strings.Contains(err.Error(), fault)):
			t.Errorf("%q: %v, want %s", text, err, fault)
		}
	}
}

func TestScanManyKeys(t *testing.T) {
	for _, n := range []int{2, 7, 8, 9, 10, 100} {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"k%d":%d,`, i, i)
		}
		if err := api.Scan([]byte(`{` + strings.TrimSuffix(b.String(), ",") + `}`)); err != nil {
			t.Errorf("%d keys: %v", n, err)
		}
		for i := range n {
			if err := api.Scan(fmt.Appendf(nil, `{%s"k%d":0}`, b.String(), i)); err == nil {
				t.Errorf("%d keys, number %d twice: accepted", n, i)
			}
		}
	}
}

func TestScanDepth(t *testing.T) {
	nest := func(n int, open, inner, shut string) []byte {
		return []byte(strings.Repeat(open, n) + inner + strings.Repeat(shut, n))
	}
	for _, tc := range []struct {
		text []byte
		ok   bool
	}{
		{nest(api.MaxDepth, "[", "", "]"), true}, {nest(api.MaxDepth+1, "[", "", "]"), false},
		{nest(api.MaxDepth, `{"a":`, "1", "}"), true}, {nest(api.MaxDepth+1, `{"a":`, "1", "}"), false},
		{nest(100_000, "[", "", "]"), false}, {nest(100_000, `{"a":`, "1", "}"), false}, {nest(100_000, "[", "", ""), false},
	} {
		if err := api.Scan(tc.text); (err == nil) != tc.ok {
			t.Errorf("%d bytes from %.10s: %v", len(tc.text), tc.text, err)
		}
	}
}

// Whatever Scan takes encoding/json takes, and what only encoding/json takes has
// one of the faults that Scan is for.
func TestScanAgainstJSON(t *testing.T) {
	seeds := []string{`{"a":[1,2.5e-3,"x\u00e9\n",null,true],"b":{"c":{}}}`, `[[],[{}],"\ud83d\ude00",-0]`, `{"a":"\\\"","b":"é😀","a2":0}`}
	alphabet := []byte(`{}[]",:\u0d8c-.eE+1 tfn` + "\xff\xc3\xa9\n")
	r := rand.New(rand.NewPCG(1, 2))
	accepted := 0
	for range 200_000 {
		b := []byte(seeds[r.IntN(len(seeds))])
		for range r.IntN(4) {
			i := r.IntN(len(b))
			switch c := alphabet[r.IntN(len(alphabet))]; r.IntN(3) {
			case 0:
				b[i] = c
			case 1:
				b = append(b[:i], b[i+1:]...)
			default:
				b = append(b[:i], append([]byte{c}, b[i:]...)...)
			}
		}
		if agree(t, b) {
			accepted++
		}
	}
	if accepted < 10_000 {
		t.Errorf("only %d texts were accepted, the test proves little", accepted)
	}
}

func agree(t *testing.T, b []byte) (accepted bool) {
	t.Helper()
	err, valid := api.Scan(b), json.Valid(b)
	if err == nil && !valid {
		t.Errorf("%q: Scan takes what is not JSON", b)
	}
	if err == nil && !utf8.Valid(b) {
		t.Errorf("%q: Scan takes bad UTF-8", b)
	}
	if err != nil && valid {
		for _, own := range []string{"duplicate key", "not valid UTF-8", "lone surrogate", "nested deeper"} {
			if strings.Contains(err.Error(), own) {
				return false
			}
		}
		t.Errorf("%q is JSON: %v", b, err)
	}
	return err == nil
}

// A line that is no object is told what it should be, and not that it is that.
func TestWhatIsNoObject(t *testing.T) {
	for _, line := range []string{`[]`, `1`, ` `, `"x"`} {
		_, _, ok, err := api.ParseRequest([]byte(line))
		if ok || api.CodeOf(err) != api.CodeBadRequest || !strings.HasPrefix(err.Error(), "expected the JSON object that a request is at byte ") {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func FuzzScan(f *testing.F) {
	for _, s := range []string{`{"a":1,"b":[true,null,"\ud83d\ude00"]}`, `{"a":1,"\u0061":2}`, `"\ud800"`, "\"\xff\"", `[[[[]]]]`, `-0.1e+5`, `{`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) { agree(t, b) })
}

func FuzzParseRequest(f *testing.F) {
	for _, s := range []string{
		`{"id":"uuid","type":"call","target":"peer_id52","protocol":"Echo","data":{"message":"hello"}}`,
		`{"id":"1","type":"stream","target":"bob","protocol":"P","instance":"i","from":"work","timeout_ms":5,"stream":"123e4567-e89b-42d3-a456-426614174000"}`,
		`{"id":"1","type":"reply","incoming":"x","error":{"code":"not_found","message":"m","hint":"h"}}`,
		`{"id":"1","type":"x","message_id":"y","data":9007199254740993}`, `{"id":null}`, `{"id":"a","id":"b"}`, `[]`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, id, ok, err := api.ParseRequest(line)
		checkID(t, line, id, ok)
		if err != nil {
			if code := api.CodeOf(err); code != api.CodeBadRequest && code != api.CodeTooLarge {
				t.Errorf("%q: code %s", line, code)
			}
			if !utf8.ValidString(err.Error()) {
				t.Errorf("%q: the error is not UTF-8: %q", line, err)
			}
			return
		}
		if !ok || r.ID != id || r.Type == "" || !json.Valid(line) {
			t.Fatalf("%q: id %q, %v; request %+v", line, id, ok, r)
		}
		// What was read is written so that it is read the same.
		again, _, _, err := api.ParseRequest(bytes.TrimSuffix(api.AppendRequest(nil, r), []byte("\n")))
		if err != nil {
			t.Fatalf("%q: written again: %v", line, err)
		}
		one, two := fmt.Sprintf("%+v %+v", *r, r.Error), fmt.Sprintf("%+v %+v", *again, again.Error)
		if r.Error == nil && len(r.Data) == 0 && one != two {
			t.Errorf("%q:\n%s\n%s", line, one, two)
		}
	})
}

// checkID: of a line that can be read, an id that is one is told.
func checkID(t *testing.T, line []byte, id string, ok bool) {
	t.Helper()
	var members map[string]json.RawMessage
	var want *string
	if api.Scan(line) != nil || json.Unmarshal(line, &members) != nil || json.Unmarshal(members["id"], &want) != nil {
		return
	}
	if valid := want != nil && len(*want) <= api.MaxID; ok != valid || ok && id != *want {
		t.Errorf("%q: id %q, %v", line, id, ok)
	}
}
