package verbs

import (
	"slices"
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
)

// What was stored with capitals, before ids had one form, is found as it is shown.
func TestInEitherCase(t *testing.T) {
	const upper, lower = "ABCDEF01-2345-4789-8ABC-DEF012345678", "abcdef01-2345-4789-8abc-def012345678"
	for _, c := range []struct {
		stored       []string
		asked, found string
	}{
		{[]string{upper}, upper, upper},
		{[]string{lower}, upper, lower},
		{[]string{lower}, lower, lower},
		{[]string{upper, lower}, upper, upper},
		{[]string{upper, lower}, lower, lower},
		{[]string{upper}, lower, ""},
	} {
		found, err := inEitherCase(c.asked, func(id string) (string, error) {
			if !slices.Contains(c.stored, id) {
				return "", api.Errorf(api.CodeNotFound, "none")
			}
			return id, nil
		})
		if found != c.found || (err == nil) != (c.found != "") {
			t.Errorf("%v, asked for %s: %q, %v", c.stored, c.asked, found, err)
		}
	}
}
