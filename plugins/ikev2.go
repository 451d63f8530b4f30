package plugins

import (
	"net/netip"
	"time"
)

// IKEv2Stats is what a driver that understands IKEv2 has seen of its clients'
// handshakes, in one group.
type IKEv2Stats struct {
	// Gateways are by name; an empty name counts handshakes that came to none.
	Gateways []IKEv2GatewayStats `json:"gateways"`
	// Problems are the last few, latest first.
	Problems []IKEv2Problem `json:"problems,omitempty"`
}

// IKEv2GatewayStats counts the handshakes with one gateway.
type IKEv2GatewayStats struct {
	// Gateway is its name.
	Gateway string `json:"gateway"`
	// Begun counts those that clients began, Finished those that made a
	// tunnel, Failed those that made none, by cause. Those under way are in
	// Begun alone.
	Begun    uint64            `json:"begun"`
	Finished uint64            `json:"finished"`
	Failed   map[string]uint64 `json:"failed,omitempty"`
	// WeakSuites counts finished ones whose algorithms are weak,
	// WithoutFragmentation those whose client doesn't announce IKE
	// fragmentation, Slow those that took seconds.
	WeakSuites           uint64 `json:"weak_suites"`
	WithoutFragmentation uint64 `json:"without_fragmentation"`
	Slow                 uint64 `json:"slow"`
}

// IKEv2Problem is something wrong with one client's handshake or tunnel.
type IKEv2Problem struct {
	// At is when it was last heard of, Gateway where it went. Client is where
	// it comes from, SPI the initiator SPI it began with.
	At      time.Time  `json:"at"`
	Gateway string     `json:"gateway,omitempty"`
	Client  netip.Addr `json:"client"`
	SPI     string     `json:"spi"`
	// ID is the finding's, Severity warning or error. Title is one line, What
	// some sentences, Windows the error codes that Windows shows, Advice what to
	// do.
	ID       string   `json:"id"`
	Severity string   `json:"severity"`
	Title    string   `json:"title"`
	What     string   `json:"what"`
	Windows  []string `json:"windows,omitempty"`
	Advice   []string `json:"advice,omitempty"`
}
