package lbotel

// A kind is what sort of instrument a metric has.
type kind uint8

const (
	counter kind = iota // a sum that only grows
	updown              // a sum that also shrinks
	gauge               // a value for which no sum makes sense; a float
)

func (k kind) String() string {
	return [...]string{"counter", "updowncounter", "gauge"}[k]
}

// An instrument describes a metric. Names follow the OpenTelemetry semantic
// conventions: a counter is named in the plural or by what happened, an
// updowncounter that counts things ends in "count"; units are UCUM's.
type instrument struct {
	name  string
	kind  kind
	unit  string
	text  string
	attrs []string
}

// The attributes.
const (
	attrGroup     = "aovlb.group.name"
	attrBackend   = "aovlb.backend.name"
	attrState     = "aovlb.backend.state"
	attrListener  = "aovlb.listener.name"
	attrPeer      = "aovlb.peer"
	attrReason    = "aovlb.reason"
	attrStage     = "aovlb.client.stage"
	attrCheck     = "aovlb.check.name"
	attrResult    = "aovlb.check.result"
	attrTransport = "network.transport" // of the semantic conventions
	attrError     = "error.type"        // of the semantic conventions
)

// The values of attrPeer.
const (
	peerClient  = "client"
	peerBackend = "backend"
)

// The instruments, as indices of instruments.
const (
	backendStatus = iota
	backendClients
	backendLimit
	backendPicks
	backendWeight
	groupPanic
	groupPriority
	routeDecisions
	routeRefusals
	tableClients
	tableNames
	tableSources
	tableMemory
	tableRemovals
	tableRefusals
	checkStatus
	checkProbes
	checkDuration
	listenerIO
	listenerUnreachable
	listenerErrors
	datagramsReceived
	datagramsSent
	datagramsDropped
	flowCount
	flowsOpened
	flowsClosed
	streamCount
	streamsAccepted
	streamsOpened
	streamsRefused
	streamsClosed
	streamRetries

	instrumentCount
)

var (
	ofBackend  = []string{attrGroup, attrBackend}
	ofGroup    = []string{attrGroup}
	ofListener = []string{attrGroup, attrListener, attrTransport}
)

// with returns attrs and one more.
func with(attrs []string, more string) []string { return append(attrs[:len(attrs):len(attrs)], more) }

var instruments = [instrumentCount]instrument{
	backendStatus: {
		"aovlb.backend.status", updown, "1",
		"1 for the state that the backend is in (up, draining, down), 0 for the others.", with(ofBackend, attrState),
	},
	backendClients: {
		"aovlb.backend.client.count", updown, "{client}",
		"Clients that the backend has now.", ofBackend,
	},
	backendLimit: {
		"aovlb.backend.client.limit", updown, "{client}",
		"Clients that the backend may have. Absent if there is no limit.", ofBackend,
	},
	backendPicks: {
		"aovlb.backend.picks", counter, "{client}",
		"New clients that the backend was picked for, whether or not it answered.", ofBackend,
	},
	backendWeight: {
		"aovlb.backend.weight", gauge, "1",
		"Weight in force: less than the configured one while the backend starts slowly.", ofBackend,
	},
	groupPanic: {
		"aovlb.group.panic", updown, "1",
		"1 while all backends are down and the checks are disbelieved, else 0.", ofGroup,
	},
	groupPriority: {
		"aovlb.group.priority", gauge, "1",
		"Priority whose backends take new clients.", ofGroup,
	},
	routeDecisions: {
		"aovlb.route.decisions", counter, "{decision}",
		"Decisions by how the backend was found: known, hint, picked, moved, asked.", with(ofGroup, attrReason),
	},
	routeRefusals: {
		"aovlb.route.refusals", counter, "{decision}",
		"Packets and streams without a backend: no_backend, backend_down, unknown_client, ask_limit.", with(ofGroup, attrReason),
	},
	tableClients: {
		"aovlb.table.client.count", updown, "{client}",
		"Clients remembered, by stage: half_open, established.", with(ofGroup, attrStage),
	},
	tableNames: {
		"aovlb.table.name.count", updown, "{name}",
		"Names of the clients remembered.", ofGroup,
	},
	tableSources: {
		"aovlb.table.source.count", updown, "{address}",
		"Source addresses of the clients remembered.", ofGroup,
	},
	tableMemory: {
		"aovlb.table.memory.usage", updown, "By",
		"Memory that the entries and their index take.", ofGroup,
	},
	tableRemovals: {
		"aovlb.table.removals", counter, "{client}",
		"Clients forgotten: expired (silent for too long) or evicted (others needed the room).", with(ofGroup, attrReason),
	},
	tableRefusals: {
		"aovlb.table.refusals", counter, "{client}",
		"Clients that weren't remembered because of a limit.", ofGroup,
	},
	checkStatus: {
		"aovlb.check.status", updown, "1",
		"1 while the check of the backend passes, else 0.", with(ofBackend, attrCheck),
	},
	checkProbes: {
		"aovlb.check.probes", counter, "{probe}",
		"Probes by result: success, failure.", with(with(ofBackend, attrCheck), attrResult),
	},
	checkDuration: {
		"aovlb.check.duration", gauge, "s",
		"How long the last probe took.", with(ofBackend, attrCheck),
	},
	listenerIO: {
		"aovlb.listener.io", counter, "By",
		"Bytes received, by whom they came from: client, backend.", with(ofListener, attrPeer),
	},
	listenerUnreachable: {
		"aovlb.listener.unreachable", counter, "{error}",
		"Times that a backend could not be reached.", ofListener,
	},
	listenerErrors: {
		"aovlb.listener.errors", counter, "{error}",
		"Failures of this machine, such as a lack of sockets, by what failed.", with(ofListener, attrError),
	},
	datagramsReceived: {
		"aovlb.datagram.received", counter, "{packet}",
		"Datagrams received, by whom they came from: client, backend.", with(ofListener, attrPeer),
	},
	datagramsSent: {
		"aovlb.datagram.sent", counter, "{packet}",
		"Datagrams sent, by whom they went to: client, backend.", with(ofListener, attrPeer),
	},
	datagramsDropped: {
		"aovlb.datagram.dropped", counter, "{packet}",
		"Datagrams not forwarded, by reason.", with(ofListener, attrReason),
	},
	flowCount: {
		"aovlb.flow.count", updown, "{flow}",
		"Flows of datagrams that are open now, by stage: unanswered, half_open, established.", with(ofListener, attrStage),
	},
	flowsOpened: {
		"aovlb.flow.opened", counter, "{flow}",
		"Flows of datagrams that were opened.", ofListener,
	},
	flowsClosed: {
		"aovlb.flow.closed", counter, "{flow}",
		"Flows of datagrams that were closed, by reason.", with(ofListener, attrReason),
	},
	streamCount: {
		"aovlb.stream.count", updown, "{stream}",
		"Streams that are open now, by stage: sniffing (waiting for the client's first bytes), other.", with(ofListener, attrStage),
	},
	streamsAccepted: {
		"aovlb.stream.accepted", counter, "{stream}",
		"Connections from clients.", ofListener,
	},
	streamsOpened: {
		"aovlb.stream.opened", counter, "{stream}",
		"Streams that reached a backend.", ofListener,
	},
	streamsRefused: {
		"aovlb.stream.refused", counter, "{stream}",
		"Connections from clients that didn't reach a backend, by reason.", with(ofListener, attrReason),
	},
	streamsClosed: {
		"aovlb.stream.closed", counter, "{stream}",
		"Streams that have ended, by reason.", with(ofListener, attrReason),
	},
	streamRetries: {
		"aovlb.stream.retries", counter, "{stream}",
		"Streams offered to another backend because one could not be reached.", ofListener,
	},
}
