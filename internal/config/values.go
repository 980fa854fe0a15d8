package config

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

// wrongType says what a key takes and what the file has.
func wrongType(want string, got any) error {
	return fmt.Errorf("must be %s, not %s", want, tomlType(got))
}

func tomlType(v any) string {
	switch v := v.(type) {
	case string:
		return "the string " + show(v)
	case int64:
		return fmt.Sprintf("the number %d", v)
	case float64:
		return fmt.Sprintf("the number %v", v)
	case bool:
		return strconv.FormatBool(v)
	case time.Time:
		return "a date"
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "a list of tables"
	}
	return "something else"
}

// checkIP accepts an address of an interface, with a zone if it needs one.
func checkIP(s string) error {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return fmt.Errorf("%s is not an IP address", show(s))
	}
	if a.IsMulticast() {
		return fmt.Errorf("%s is a multicast address", show(s))
	}
	return nil
}

// checkMultiaddr accepts what fastn can dial: a host, a port and the
// transport, optionally with the node's id. The p2p layer reads it again; here
// a mistake still has a line number.
func checkMultiaddr(s string) error {
	bad := func(why string) error {
		return fmt.Errorf("%s is not an address: %s; write it as /ip4/203.0.113.5/udp/4100/quic-v1 or /dns/host.example/tcp/4100", show(s), why)
	}
	if !strings.HasPrefix(s, "/") {
		return bad("it must start with /")
	}
	parts := strings.Split(s[1:], "/")
	if len(parts) < 4 {
		return bad("it needs a host and a port")
	}
	if why := hostProblem(parts[0], parts[1]); why != "" {
		return bad(why)
	}
	if n, err := strconv.ParseUint(parts[3], 10, 16); err != nil || n == 0 {
		return bad("the port must be from 1 to 65535")
	}
	rest := parts[4:]
	switch parts[2] {
	case "tcp":
	case "udp":
		if len(rest) == 0 || rest[0] != "quic-v1" {
			return bad("/udp must be followed by /quic-v1")
		}
		rest = rest[1:]
	default:
		return bad("the transport must be tcp or udp")
	}
	if len(rest) == 0 {
		return nil
	}
	if len(rest) != 2 || rest[0] != "p2p" {
		return bad("only /p2p/NODEID may follow the transport")
	}
	if err := checkNodeID(rest[1]); err != nil {
		return bad(err.Error())
	}
	return nil
}

func hostProblem(kind, host string) string {
	addr, err := netip.ParseAddr(host)
	switch kind {
	case "ip4":
		if err != nil || !addr.Is4() {
			return "/ip4 must be followed by an IPv4 address"
		}
	case "ip6":
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return "/ip6 must be followed by an IPv6 address"
		}
	case "dns", "dns4", "dns6":
		if host == "" || len(host) > 253 || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return "/" + kind + " must be followed by a host name"
		}
	default:
		return "it must start with /ip4, /ip6, /dns, /dns4 or /dns6"
	}
	return ""
}

// checkNodeID accepts the two ways in which a node's Ed25519 key is written.
// That it is a point on the curve is for those who use it.
func checkNodeID(s string) error {
	id52 := regexp.MustCompile(`^[0-9a-v]{52}$`)
	peerID := regexp.MustCompile(`^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$`)
	if id52.MatchString(s) || peerID.MatchString(s) {
		return nil
	}
	return fmt.Errorf(`%s is not a node id: the other side sees its own with fastn status`, show(s))
}

func staticPeersKey() spec {
	return spec{
		name: "p2p.static_peers",
		typ:  "tables with id (string) and addresses (list of multiaddrs)",
		doc:  "Nodes to stay connected to, found without any discovery. Each is a [[p2p.static_peers]] table: id is the node's id as fastn status shows it on that machine, addresses is where it is reached.",
		get:  func(c *Config) any { return append([]StaticPeer{}, c.P2P.StaticPeers...) },
		set:  setStaticPeers,
	}
}

func setStaticPeers(c *Config, v any) error {
	tables, ok := asTables(v)
	if !ok {
		return wrongType("[[p2p.static_peers]] tables", v)
	}
	if len(tables) > maxListItems {
		return fmt.Errorf("there are %d: allowed are %d", len(tables), maxListItems)
	}
	peers := make([]StaticPeer, 0, len(tables))
	for i, t := range tables {
		p, err := asStaticPeer(t)
		if err == nil && slices.ContainsFunc(peers, func(q StaticPeer) bool { return q.ID == p.ID }) {
			err = elementError{key: "id", err: fmt.Errorf("%s is listed twice", show(p.ID))}
		}
		if err != nil {
			if e, ok := errors.AsType[elementError](err); ok {
				e.index = i
				return e
			}
			return err
		}
		peers = append(peers, p)
	}
	c.P2P.StaticPeers = peers
	return nil
}

// asTables takes an array of tables in either of TOML's two forms.
func asTables(v any) ([]map[string]any, bool) {
	if tables, ok := v.([]map[string]any); ok {
		return tables, true
	}
	list, ok := v.([]any)
	if !ok {
		return nil, false
	}
	tables := make([]map[string]any, 0, len(list))
	for _, e := range list {
		t, ok := e.(map[string]any)
		if !ok {
			return nil, false
		}
		tables = append(tables, t)
	}
	return tables, true
}

// elementError is a problem inside the index-th table of an array of tables.
type elementError struct {
	index int
	key   string
	err   error
}

func (e elementError) Error() string { return e.err.Error() }
func (e elementError) Unwrap() error { return e.err }

func asStaticPeer(t map[string]any) (StaticPeer, error) {
	var p StaticPeer
	for _, name := range sortedNames(t) {
		if name != "id" && name != "addresses" {
			return p, elementError{key: name, err: errUnknown(api.Nearest(name, []string{"id", "addresses"}))}
		}
	}
	id, ok := t["id"].(string)
	if !ok {
		return p, elementError{key: "id", err: missingOr("the node's id, a string", t["id"])}
	}
	if err := checkNodeID(id); err != nil {
		return p, elementError{key: "id", err: err}
	}
	if _, ok := t["addresses"]; !ok {
		return p, elementError{key: "addresses", err: missingOr("a list of multiaddrs", nil)}
	}
	addrs, err := asStrings(t["addresses"], checkMultiaddr)
	if err == nil && len(addrs) == 0 {
		err = errors.New("the list must hold at least 1")
	}
	if err != nil {
		return p, elementError{key: "addresses", err: err}
	}
	return StaticPeer{ID: id, Addresses: addrs}, nil
}

func missingOr(want string, got any) error {
	if got == nil {
		return errors.New("is missing: it must be " + want)
	}
	return wrongType(want, got)
}

func oneOf(choices []string) string {
	quoted := make([]string, len(choices))
	for i, c := range choices {
		quoted[i] = strconv.Quote(c)
	}
	return strings.Join(quoted, ", ")
}

// tomlValue writes a key's value as TOML.
func tomlValue(v any) string {
	switch v := v.(type) {
	case Size:
		return strconv.Quote(v.String())
	case Duration:
		return strconv.Quote(v.String())
	case string:
		return strconv.Quote(v)
	case []string:
		return "[" + oneOf(v) + "]"
	case []StaticPeer:
		if len(v) == 0 {
			return "[]"
		}
	}
	return fmt.Sprint(v)
}
