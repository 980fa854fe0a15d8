package api

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
)

// DecodeArgs reads the `data` of a management verb into dst, a pointer to a
// struct of plain members. Missing data is an empty object. encoding/json takes
// member names in any case, and null for anything; here names are exact, and
// unknown ones, null and what is no object are bad_request. After an error dst may hold
// some members.
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
	into := reflect.ValueOf(dst).Elem()
	for _, f := range fields {
		i := member(into.Type(), f.key)
		switch {
		case i < 0 && into.NumField() == 0:
			return badRequest("%s: unknown member %q; there is none", where, Shorten(f.key))
		case i < 0:
			return badRequest("%s: unknown member %q; there is %s", where, Shorten(f.key), strings.Join(members(into.Type()), ", "))
		case string(f.value) == "null":
			return badRequest("%s: %q may not be null", where, f.key)
		}
		if decode(f.value, into.Field(i).Addr().Interface()) != nil {
			return badRequest("%s: %q must be %s", where, f.key, wanted(into.Type().Field(i).Type))
		}
	}
	return nil
}

// member is the field of a struct that has this JSON name, -1 if none has.
func member(t reflect.Type, name string) int {
	for i := range t.NumField() {
		if jsonName(t.Field(i)) == name {
			return i
		}
	}
	return -1
}

// members are the JSON names of a struct, sorted.
func members(t reflect.Type) []string {
	var all []string
	for i := range t.NumField() {
		all = append(all, jsonName(t.Field(i)))
	}
	slices.Sort(all)
	return all
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
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
