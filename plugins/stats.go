package plugins

import (
	"net/netip"
	"time"
)

// Stats is what a driver counts. A nil pointer means that the balancer doesn't
// say.
type Stats struct {
	// At is when it was read, Since when counting began.
	At    time.Time `json:"at"`
	Since time.Time `json:"since"`
	// Site is the site that is served.
	Site      string          `json:"site"`
	Pools     []PoolStats     `json:"pools"`
	Groups    []GroupStats    `json:"groups"`
	Listeners []ListenerStats `json:"listeners"`
	// FastPath is nil if none was asked for.
	FastPath *FastPathStats `json:"fastpath,omitempty"`
}

// PoolStats is what is known of a pool.
type PoolStats struct {
	Name string `json:"name"`
	// Panic says that every backend fails its checks and that they are
	// disbelieved.
	Panic bool `json:"panic"`
	// Priority is the one in use.
	Priority int            `json:"priority"`
	Backends []BackendStats `json:"backends"`
}

// BackendStats is what is known of a backend.
type BackendStats struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	// State is up, draining or down; Cause says why, Since from when.
	State string    `json:"state"`
	Cause string    `json:"cause,omitempty"`
	Since time.Time `json:"since,omitzero"`
	// Share is its part of new clients, 0 to 1, of those that take any.
	Share    float64 `json:"share"`
	Priority int     `json:"priority"`
	// Clients is how many it has, MaxClients how many it may have (0: any).
	Clients    *int `json:"clients,omitempty"`
	MaxClients int  `json:"max_clients,omitempty"`
	// Active is how many flows or connections it has now, Total how many it
	// has had. In is from clients to it, Out from it to clients.
	Active *int64   `json:"active,omitempty"`
	Total  *uint64  `json:"total,omitempty"`
	In     *Traffic `json:"in,omitempty"`
	Out    *Traffic `json:"out,omitempty"`
	// DrainDeadline is when a drain ends; zero if none does.
	DrainDeadline time.Time    `json:"drain_deadline,omitzero"`
	Checks        []CheckStats `json:"checks,omitempty"`
}

// CheckStats is what is known of a check of a backend.
type CheckStats struct {
	// Name is the check's, Target what is asked.
	Name   string         `json:"name"`
	Target netip.AddrPort `json:"target"`
	// Known is false until the first probe has ended.
	Known bool `json:"known"`
	// Passing is the result, after rise and fall. Advisory says that it brings
	// nothing down.
	Passing  bool `json:"passing"`
	Advisory bool `json:"advisory,omitempty"`
	// Took is how long the last probe took, At when it ended.
	Took Duration  `json:"took"`
	At   time.Time `json:"at,omitzero"`
	// Probes counts all probes, Failures those that failed.
	Probes   uint64 `json:"probes"`
	Failures uint64 `json:"failures"`
	// LastError says why the last one that failed did, FailedAt when.
	LastError string    `json:"last_error,omitempty"`
	FailedAt  time.Time `json:"failed_at,omitzero"`
}

// GroupStats is what is counted of an affinity group.
type GroupStats struct {
	Name string `json:"name"`
	Pool string `json:"pool"`
	// Clients, HalfOpen, Names and Bytes say what its table holds.
	Clients  *int `json:"clients,omitempty"`
	HalfOpen *int `json:"half_open,omitempty"`
	Names    *int `json:"names,omitempty"`
	Bytes    *int `json:"bytes,omitempty"`
	// Routes counts decisions by how they were made, Refused those that could
	// not be made, by reason, and Lost the clients that left the table by
	// force or were never taken in, by reason.
	Routes  map[string]uint64 `json:"routes,omitempty"`
	Refused map[string]uint64 `json:"refused,omitempty"`
	Lost    map[string]uint64 `json:"lost,omitempty"`
	// Accounting is what is kept of RADIUS accounting; nil if none is.
	Accounting *RADIUSStoreStats `json:"accounting,omitempty"`
	// IKEv2 is what became of IKEv2 handshakes; nil if there were none.
	IKEv2 *IKEv2Stats `json:"ikev2,omitempty"`
}

// ListenerStats is what is counted of a listener.
type ListenerStats struct {
	// Name and Group are its own name and that of its group.
	Name  string `json:"name"`
	Group string `json:"group"`
	// Protocol and Address are what is spoken there, and where.
	Protocol Protocol       `json:"protocol"`
	Address  netip.AddrPort `json:"address"`
	// State is open, draining or failed; Error says why it failed.
	State string `json:"state"`
	Error string `json:"error,omitempty"`
	// Active is how many flows or connections there are now, Total how many
	// there have been.
	Active *int64  `json:"active,omitempty"`
	Total  *uint64 `json:"total,omitempty"`
	// In is from clients to backends, Out from backends to clients.
	In  *Traffic `json:"in,omitempty"`
	Out *Traffic `json:"out,omitempty"`
	// Carried is the part of both that the fast path has carried; nil if there
	// is none for this listener.
	Carried *Traffic `json:"carried,omitempty"`
	// Dropped counts what was not forwarded, by reason.
	Dropped map[string]uint64 `json:"dropped,omitempty"`
	// RADIUS is what a RADIUS proxy counts besides.
	RADIUS *RADIUSStats `json:"radius,omitempty"`
}

// Traffic counts one direction.
type Traffic struct {
	// Packets and Bytes are what was carried; streams have no Packets.
	Packets uint64 `json:"packets,omitempty"`
	Bytes   uint64 `json:"bytes"`
}

// An Event is something that happened.
type Event struct {
	At       time.Time `json:"at"`
	Severity Severity  `json:"severity"`
	// Kind is what happened: backend, check, drain, apply, listener, moved.
	Kind string `json:"kind"`
	// Name is what it happened to.
	Name string `json:"name,omitempty"`
	// Text says it in words.
	Text string `json:"text"`
	// Missed is how many events before this one were left out.
	Missed int `json:"missed,omitempty"`
}
