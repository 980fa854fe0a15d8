package verbs

import (
	"slices"
	"strings"
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

// The error of a page's bounds tells those that are taken.
func TestPageBounds(t *testing.T) {
	for limit, want := range map[int]int{0: defaultPage, 1: 1, longestPage: longestPage} {
		if p, err := page(0, limit); err != nil || p.Limit != want {
			t.Errorf("%d: %+v, %v", limit, p, err)
		}
	}
	for _, bounds := range [][2]int{{-1, 1}, {0, -1}, {0, longestPage + 1}} {
		_, err := page(int64(bounds[0]), bounds[1])
		if api.CodeOf(err) != api.CodeBadRequest || !strings.Contains(err.Error(), `"limit" from 0 to 1000; 0 is 100`) {
			t.Errorf("%v: %v", bounds, err)
		}
	}
}
