package plugins

import "path"

// A FastPath says whether the operating system's kernel carries the clients of
// ikev2 listeners once they are established. What it can't carry, this program
// does.
type FastPath string

const (
	// FastPathOff has this program carry everything.
	FastPathOff FastPath = "off"
	// FastPathAuto has the kernel carry what it can, and none where it refuses:
	// "aovlb status" then says why.
	FastPathAuto FastPath = "auto"
	// FastPathRequire is FastPathAuto, but refuses to serve if there can be none.
	FastPathRequire FastPath = "require"
)

// On reports whether there is to be one.
func (f FastPath) On() bool { return f == FastPathAuto || f == FastPathRequire }

// FastPathOptions say how the kernel carries clients.
type FastPathOptions struct {
	// Hook is where it takes their packets; empty means FastPathTC.
	Hook FastPathHook `json:"hook,omitempty"`
	// Interfaces are the network devices that packets of clients and of backends
	// come in by. Empty means those that have the addresses of ikev2 listeners,
	// and those by which the routes lead to their backends and to the world.
	Interfaces []string `json:"interfaces,omitempty"`
	// MaxFlows is how many clients are carried at once; 0 means 65,536. Further
	// ones are carried by this program.
	MaxFlows int `json:"max_flows,omitempty"`
	// FirstMessages is how many first messages of new clients each processor lets
	// through in a second, on the average of ten seconds, so that a flood of them takes
	// little time from clients that are carried; 0 means 2,000, and -1 all. A client
	// whose message is dropped sends it again.
	FirstMessages int `json:"first_messages,omitempty"`
	// Pin is a folder of a BPF file system. With it a restart of this program
	// drops no packet of the clients that are carried. It takes a state directory.
	Pin string `json:"pin,omitempty"`
}

// A FastPathHook names where the kernel takes packets.
type FastPathHook string

const (
	// FastPathTC is for every Ethernet device, and takes Linux 6.6.
	FastPathTC FastPathHook = "tc"
	// FastPathXDP is faster, where a device's driver has it; elsewhere it is as
	// FastPathTC.
	FastPathXDP FastPathHook = "xdp"
)

// FastPathStats is what is known of the fast path.
type FastPathStats struct {
	// Mode is what was asked for.
	Mode FastPath `json:"mode"`
	// Active says whether there is one; Reason why not.
	Active bool   `json:"active"`
	Reason string `json:"reason,omitempty"`
	// Attached are the network devices, and where their packets are taken.
	Attached map[string]string `json:"attached,omitempty"`
	// Flows are carried now, of MaxFlows. Waiting are those of them that were
	// there before this process, and that it has not gone on with yet.
	Flows    int `json:"flows"`
	Waiting  int `json:"waiting,omitempty"`
	MaxFlows int `json:"max_flows,omitempty"`
	// Full counts refusals because of MaxFlows, Failed those for which there was
	// no place in the kernel's table, as too many had come and gone in a moment.
	Full   uint64 `json:"full,omitempty"`
	Failed uint64 `json:"failed,omitempty"`
	// Dropped counts first messages beyond FirstMessages.
	Dropped uint64 `json:"dropped,omitempty"`
	// Left counts packets that were left to this program, by reason.
	Left map[string]uint64 `json:"left,omitempty"`
}

// fastPath checks the fast path of a site.
func (v *validator) fastPath(at string, s *Site) {
	oneOf(v, at+".fastpath", s.FastPath, FastPathOff, FastPathAuto, FastPathRequire)
	o := s.FastPathOptions
	if o == nil {
		return
	}
	at += ".fastpath_options"
	oneOf(v, at+".hook", o.Hook, FastPathTC, FastPathXDP)
	v.between(at+".max_flows", o.MaxFlows, 1, 1<<20)
	v.between(at+".first_messages", o.FirstMessages, -1, 10_000_000)
	for i, name := range o.Interfaces {
		if name == "" || len(name) > 15 {
			v.add(index(at, ".interfaces", i), "%q is no name of a network device", name)
		}
	}
	if o.Pin != "" && (!path.IsAbs(o.Pin) || path.Clean(o.Pin) != o.Pin) {
		v.add(at+".pin", "%q is no plain absolute path", o.Pin)
	}
}
