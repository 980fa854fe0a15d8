package api

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// DecodeArgs reads the `data` of a management verb into dst, a pointer to a
// struct of plain members. Missing data is an empty object. encoding/json takes
// member names in any case, and null for anything; here names are exact, and
// unknown ones, null and what is no object are bad_request.
func DecodeArgs(data json.RawMessage, dst any) error {
	if len(data) == 0 {
		return nil
	}
	return decodeObject(data, dst, `"data"`)
}

// CheckArgs is DecodeArgs for somebody else to read: into a value like args, nil
// for none.
func CheckArgs(data json.RawMessage, args any) error {
	if args == nil {
		args = struct{}{}
	}
	return DecodeArgs(data, reflect.New(reflect.TypeOf(args)).Interface())
}

// decodeObject reads an object into dst; where is how errors call it.
func decodeObject(text []byte, dst any, where string) error {
	fields, err := scanObject(text)
	if err != nil {
		if fields == nil {
			return badRequest("%s must be an object", where)
		}
		return badRequest("%s: %v", where, err)
	}
	known := members(reflect.TypeOf(dst).Elem())
	for _, f := range fields {
		member, ok := known[f.key]
		switch {
		case !ok && len(known) == 0:
			return badRequest("%s: unknown member %q; there is none", where, Shorten(f.key))
		case !ok:
			return badRequest("%s: unknown member %q; there is %s", where, Shorten(f.key), strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		case string(f.value) == "null":
			return badRequest("%s: %q may not be null", where, f.key)
		}
		if json.Unmarshal(f.value, reflect.New(member).Interface()) != nil {
			return badRequest("%s: %q must be %s", where, f.key, wanted(member))
		}
	}
	if err := json.Unmarshal(text, dst); err != nil {
		return badRequest("%s: %v", where, err)
	}
	return nil
}

// members are the JSON names of a struct and what they hold.
func members(t reflect.Type) map[string]reflect.Type {
	all := make(map[string]reflect.Type, t.NumField())
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		all[name] = t.Field(i).Type
	}
	return all
}

// wanted tells people what a member must be.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return wanted(t.Elem())
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "an array, each " + wanted(t.Elem())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number, 0 or more"
	}
	return "a whole number"
}
