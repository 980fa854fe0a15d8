package api_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
)

// FuzzArgs reads a text as the arguments of every verb: an error is a
// bad_request, and what was read is read the same when it is written again.
func FuzzArgs(f *testing.F) {
	for _, s := range []string{"", "{}", "null", "[]", `{"name":"work"}`, `{"name":"a","NAME":"b"}`, `{"name":"a","to":null}`, `{"for":"carol","expires_s":86400}`,
		`{"name":"bob","ticket":"fastn1x","address":"/ip4/1.2.3.4/tcp/1"}`, `{"who":"bob","protocol":"Shell","instance":"x"}`, `{"expires_s":1.5}`, `{"name":"a","na\u006de":"b"}`,
		`{"kinds":["call"],"cursor":1}`, `{"client":"x","version":1}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		all := []any{api.HelloArgs{}, api.ListenArgs{}, api.SubscribeArgs{}}
		for _, v := range api.Verbs() {
			if v.Args != nil {
				all = append(all, v.Args)
			}
		}
		for _, args := range all {
			dst := reflect.New(reflect.TypeOf(args))
			err := api.DecodeArgs(data, dst.Interface())
			if check := api.CheckArgs(data, args); (check == nil) != (err == nil) {
				t.Errorf("%T: %q is checked with %v, read with %v", args, data, check, err)
			}
			if err != nil {
				if api.CodeOf(err) != api.CodeBadRequest {
					t.Errorf("%T: %q: %v", args, data, err)
				}
				continue
			}
			text, err := json.Marshal(dst.Interface())
			if err != nil {
				t.Fatal(err)
			}
			again := reflect.New(reflect.TypeOf(args))
			if err := json.Unmarshal(text, again.Interface()); err != nil {
				t.Errorf("%T: %q became %q: %v", args, data, text, err)
			}
			if second, _ := json.Marshal(again.Interface()); string(second) != string(text) {
				t.Errorf("%T: %q became %q, then %q", args, data, text, second)
			}
		}
	})
}
