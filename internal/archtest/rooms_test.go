package archtest

import (
	"path"
	"slices"
	"strings"
)

const module = "github.com/aovlb/aovlb"

// A room is a rule: what the packages in one folder may import beyond the
// standard library, in their own code. Tests are freer; see testsMay.
type room struct {
	// match is a folder, a pattern of [path.Match], or, ending in "/...", a
	// folder with all below it. The first rule that matches counts.
	match string
	// ours are the rooms it may import, as patterns like match.
	ours []string
	// modules are the modules of others that it may import.
	modules []string
	// reach is how many modules of others it may lead to, in all: what its
	// user compiles. Less than 0 means that nobody counts.
	reach int
}

const (
	sys      = "golang.org/x/sys"
	xnet     = "golang.org/x/net"
	layeh    = "layeh.com/radius"
	goPlugin = "github.com/hashicorp/go-plugin"
	grpc     = "google.golang.org/grpc"
	protobuf = "google.golang.org/protobuf"
	fsnotify = "github.com/fsnotify/fsnotify"
	pkcs12   = "software.sslmate.com/src/go-pkcs12"
)

// anything allows every module.
const anything = "*"

// uncounted is the reach of rooms nobody embeds.
const uncounted = -1

// rooms is the import table of docs/design.md. Some rooms are not built yet:
// their rules wait for them.
var rooms = []room{
	{match: "lb"},
	{match: "lb/udp", ours: []string{"lb"}, modules: []string{sys, xnet}, reach: 1},
	{match: "lb/fastpath", ours: []string{"lb", "lb/udp"}, modules: []string{sys, "github.com/cilium/ebpf"}, reach: 2},
	{match: "lb/tcp", ours: []string{"lb"}, modules: []string{sys, xnet}, reach: 1},
	{match: "lb/lbtest", ours: []string{"lb"}},
	{match: "lb/lbotel", ours: []string{"lb"}, modules: []string{"go.opentelemetry.io/otel", "go.opentelemetry.io/otel/metric", "go.opentelemetry.io/otel/trace"}, reach: 3},

	{match: "ikev2", ours: []string{"lb"}},
	{match: "ikev2/capture", ours: []string{"ikev2"}, modules: []string{"github.com/gopacket/gopacket", sys, xnet}, reach: 3},
	{match: "sstp", ours: []string{"lb"}},
	{match: "sstp/pfx", ours: []string{"sstp"}, modules: []string{pkcs12}, reach: 2},
	{match: "sstp/acme", ours: []string{"sstp"}, modules: []string{"github.com/caddyserver/certmagic", "github.com/mholt/acmez/v3", "go.uber.org/zap"}, reach: 24},
	{match: "radius", ours: []string{"lb"}, modules: []string{layeh}},
	{match: "radius/spool"},
	{match: "radius/accounting", ours: []string{"lb", "radius", "radius/spool"}},
	{match: "radius/radsec", ours: []string{"lb", "radius"}},
	{match: "radius/eaptls", ours: []string{"radius"}},
	{match: "radius/npscert", ours: []string{"radius", "radius/eaptls"}},

	{match: "geo"},
	{match: "geo/geodns", ours: []string{"geo"}, modules: []string{"github.com/miekg/dns", sys}, reach: 8},
	{match: "geo/mmdb", ours: []string{"geo"}, modules: []string{"github.com/oschwald/maxminddb-golang/v2"}, reach: 2},
	{match: "profilexml"},
	{match: "profilexml/rasphone"},
	{match: "profilexml/rasphone/watch", ours: []string{"profilexml/rasphone"}, modules: []string{fsnotify, sys}, reach: 2},

	{match: "plugins"},
	{match: "plugins/builtin", ours: []string{"plugins", "lb", "lb/udp", "lb/tcp", "lb/fastpath", "ikev2", "sstp", "radius", "radius/...", "geo"}, reach: 2},
	{match: "plugins/proto/v1", modules: []string{grpc, protobuf}, reach: 8},
	{match: "plugins/proto/wire", ours: []string{"plugins", "plugins/proto/v1"}, modules: []string{grpc, protobuf}, reach: 8},
	{match: "plugins/host", ours: outside, modules: append([]string{sys}, pluginModules...), reach: 24},
	{match: "plugins/sdk", ours: outside, modules: pluginModules, reach: 24},
	{match: "plugins/plugintest", ours: []string{"plugins"}, modules: []string{"github.com/google/go-cmp"}, reach: 1},
	{match: "plugins/plugintest/...", ours: outside, modules: pluginModules, reach: 24},
	{match: "plugins/vendors", ours: []string{"plugins", "plugins/vendors/..."}, modules: pluginModules, reach: 24},
	// A vendor that needs a client library gets a rule of its own above this.
	{match: "plugins/vendors/...", ours: append([]string{"plugins/vendors/..."}, outside...), modules: pluginModules, reach: 24},

	{match: "examples/...", ours: []string{"..."}, modules: []string{anything}, reach: uncounted},

	{match: "internal/appliance/..."},
	{match: "internal/archtest"},
	{match: "internal/peers/...", ours: []string{"internal/peers/...", "lb", "ikev2", "sstp", "radius"}, modules: []string{sys, xnet, layeh}, reach: uncounted},
	{match: "internal/standin/...", ours: []string{"internal/standin/...", "lb", "lb/lbtest", "ikev2", "sstp", "radius"}, modules: []string{layeh}, reach: uncounted},
}

// outside is what plugin programs stand on: the contract and its wire form.
var outside = []string{"plugins", "plugins/proto/...", "plugins/host", "plugins/sdk", "plugins/plugintest"}

var pluginModules = []string{goPlugin, grpc, protobuf, "github.com/hashicorp/go-hclog"}

// testsMay are the modules that any test may import besides those of its room.
var testsMay = []string{
	"github.com/google/go-cmp",
	"pgregory.net/rapid",
	"github.com/rogpeppe/go-internal",
	"go.uber.org/goleak",
	"github.com/santhosh-tekuri/jsonschema/v6",
	"github.com/gopacket/gopacket",
	sys, xnet, layeh,
}

// A wall is a negative rule: whatever the table allows, from must never lead
// to to, not even by way of others. It says why.
type wall struct {
	from, to []string // patterns of rooms, or modules
	why      string
}

var (
	engines   = []string{"lb/udp", "lb/tcp"}
	protocols = []string{"ikev2", "sstp/...", "radius/..."}
)

// walls come in the order in which they explain best: the first that matches
// is reported.
var walls = []wall{
	{from: []string{"lb"}, to: []string{"..."}, why: "lb decides, and knows nobody: what it needs of others it declares as an interface"},
	{from: engines, to: protocols, why: "engines know no protocol; they are handed an lb.Classifier or lb.Sniffer"},
	{from: append([]string{"lb"}, engines...), to: []string{"lb/fastpath"}, why: "a fast path is an option: engines declare what they need of it as an interface"},
	{from: []string{"lb/fastpath"}, to: protocols, why: "it carries what the engine has judged"},
	{from: engines, to: engines, why: "datagrams and streams are served by different engines that share a Balancer, not code"},
	{from: engines, to: []string{"plugins/..."}, why: "engines carry bytes; a deployment is turned into engines by plugins/builtin"},
	{from: protocols, to: engines, why: "protocols judge bytes and open no listener; programs put them and engines together"},
	{from: []string{"ikev2"}, to: []string{"sstp/...", "radius/..."}, why: "each protocol stands alone, so that a program takes only what it balances"},
	{from: []string{"sstp/..."}, to: []string{"ikev2", "radius/..."}, why: "each protocol stands alone, so that a program takes only what it balances"},
	{from: []string{"radius/..."}, to: []string{"ikev2", "sstp/..."}, why: "each protocol stands alone, so that a program takes only what it balances"},
	{from: protocols, to: []string{"plugins/..."}, why: "a protocol is useful without a deployment"},
	{from: []string{"lb/lbotel"}, to: engines, why: "it reads Stats; an adapter must not bring engines along"},
	{from: []string{"lb/lbtest"}, to: append([]string{"ikev2", "sstp/...", "radius/..."}, engines...), why: "the conformance suites are for anybody's Classifier, Picker and Prober, so they favour none"},
	{from: []string{"geo"}, to: []string{"..."}, why: "the policy of sites is plain data; it is told facts"},
	{from: []string{"profilexml"}, to: []string{"..."}, why: "profilexml is a leaf: a program that writes profiles balances nothing"},
	{from: []string{"profilexml/rasphone"}, to: []string{"..."}, why: "rasphone is a leaf: it edits one file format"},
	{from: []string{"plugins"}, to: []string{"..."}, why: "the contract of plugins is plain Go, so that a vendor's driver needs nothing of ours but it"},
	{from: []string{"plugins/builtin"}, to: []string{goPlugin, grpc, "plugins/host", "plugins/sdk"}, why: "the built-in driver is served in this process; it speaks to no other"},
	{from: []string{"plugins/host", "plugins/sdk", "plugins/plugintest", "plugins/proto/...", "plugins/vendors/..."}, to: []string{"lb/...", "ikev2", "sstp/...", "radius/...", "plugins/builtin"}, why: "a plugin configures somebody else's box: it has no business with engines and protocols"},
	{from: []string{"..."}, to: []string{"examples/..."}, why: "examples are programs, and nobody's library"},
	{from: []string{"..."}, to: []string{"internal/archtest"}, why: "it has nothing to import"},
}

// matches reports whether a room or module is meant by pattern.
func matches(pattern, name string) bool {
	if pattern == "..." {
		return !strings.Contains(name, ".")
	}
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return name == base || strings.HasPrefix(name, base+"/")
	}
	ok, _ := path.Match(pattern, name)
	return ok
}

func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, name) })
}

// ruleFor returns the rule for a folder.
func ruleFor(dir string) (room, bool) {
	i := slices.IndexFunc(rooms, func(r room) bool { return matches(r.match, dir) })
	if i < 0 {
		return room{}, false
	}
	return rooms[i], true
}

// wallBetween returns why from must not lead to to, or "".
func wallBetween(from, to string) string {
	if from == to || sameProgram(from, to) {
		return ""
	}
	for _, w := range walls {
		if matchesAny(w.from, from) && matchesAny(w.to, to) {
			return w.why
		}
	}
	return ""
}

// sameProgram reports whether both are folders of one example, which may be
// made of several packages.
func sameProgram(a, b string) bool {
	return strings.HasPrefix(a, "examples/") && strings.HasPrefix(b, "examples/") &&
		strings.Split(a, "/")[1] == strings.Split(b, "/")[1]
}
