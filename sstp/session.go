package sstp

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// A Stage is how far an SSTP session came.
type Stage uint8

const (
	// StageHead: the client's request has come, and no answer yet.
	StageHead Stage = iota
	// StageAccepted: the gateway has answered with 200.
	StageAccepted
	// StageRequested: the client has sent its CALL_CONNECT_REQUEST.
	StageRequested
	// StageAcknowledged: the gateway has answered it by CALL_CONNECT_ACK. PPP
	// negotiates and authenticates.
	StageAcknowledged
	// StageBound: the client has sent its CALL_CONNECTED. There is no answer to
	// it: whoever isn't aborted is connected.
	StageBound
	// StageConnected: data have moved since, both ways.
	StageConnected
	// StageOpaque: what is carried can't be followed: TLS that is passed
	// through, or IP-HTTPS.
	StageOpaque
)

var stageNames = [...]string{"request", "accepted", "requested", "acknowledged", "bound", "connected", "opaque"}

func (s Stage) String() string {
	if int(s) < len(stageNames) {
		return stageNames[s]
	}
	return "unknown"
}

// MarshalText returns the Stage as String does.
func (s Stage) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Peer is one of the two ends of a session, or what is between them.
type Peer uint8

const (
	// PeerNone: nobody, or not known.
	PeerNone Peer = iota
	// PeerClient is the client, or the network before it.
	PeerClient
	// PeerGateway is the gateway.
	PeerGateway
	// PeerBalancer is the balancer itself.
	PeerBalancer
)

func (p Peer) String() string {
	switch p {
	case PeerClient:
		return "client"
	case PeerGateway:
		return "gateway"
	case PeerBalancer:
		return "balancer"
	}
	return ""
}

// MarshalText returns the Peer as String does.
func (p Peer) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// An AuthResult is how far a user's authentication came.
type AuthResult uint8

const (
	// AuthNone: none was seen. The protocol may have been encrypted.
	AuthNone AuthResult = iota
	// AuthBegun: it was begun and has had no result.
	AuthBegun
	// AuthSucceeded and AuthFailed: the gateway said so.
	AuthSucceeded
	AuthFailed
)

func (a AuthResult) String() string {
	return [...]string{"", "begun", "succeeded", "failed"}[min(a, AuthFailed)]
}

// MarshalText returns the AuthResult as String does.
func (a AuthResult) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// An Auth is what the frames of PPP say in clear of a user's authentication. No
// name and nothing secret is kept.
type Auth struct {
	// Protocol is CHAP, EAP or PAP; with EAP the method follows: "EAP PEAP".
	Protocol string `json:"protocol,omitempty"`
	// Result is how it ended.
	Result AuthResult `json:"result,omitempty"`
	// Error is the number that MS-CHAPv2 gives for a failure (RFC 2759 §6), such
	// as 691 for a wrong name or password; 0 for none.
	Error int `json:"error,omitempty"`
}

func (a Auth) String() string {
	switch {
	case a.Result == AuthNone:
		return "no authentication seen"
	case a.Error != 0:
		return fmt.Sprintf("%s %v with error %d", a.Protocol, a.Result, a.Error)
	}
	return a.Protocol + " " + a.Result.String()
}

// A CertHash is the hash of a certificate as a client reports it.
type CertHash struct {
	// Hash is which it is; 0 if none was reported.
	Hash Hashes
	// Sum is a SHA-256, or a SHA-1 and zeros.
	Sum [32]byte
}

// String returns the hash as hexadecimal digits, and "" for none.
func (c CertHash) String() string { return hex.EncodeToString(c.Sum[:c.Hash.size()]) }

// MarshalText returns the CertHash as String does.
func (c CertHash) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what MarshalText returns.
func (c *CertHash) UnmarshalText(b []byte) error {
	*c = CertHash{}
	sum, err := hex.DecodeString(string(b))
	switch len(sum) {
	case 0:
	case HashSHA1.size():
		c.Hash = HashSHA1
	case HashSHA256.size():
		c.Hash = HashSHA256
	default:
		err = fmt.Errorf("sstp: a certificate's hash of %d bytes", len(sum))
	}
	copy(c.Sum[:], sum)
	return err
}

// IsZero reports whether there is none.
func (c CertHash) IsZero() bool { return c.Hash == 0 }

// names reports whether it is the hash of the certificate with these hashes.
func (c CertHash) names(f Fingerprint, f1 FingerprintSHA1) bool {
	b := Binding{Hash: c.Hash, CertHash: c.Sum}
	return b.Names(f, f1)
}

// An Abort is a CALL_ABORT or a CALL_DISCONNECT that was seen.
type Abort struct {
	// By is who sent it.
	By Peer `json:"by"`
	// Attribute and Status are what it said; zero without a STATUS_INFO.
	Attribute AttributeID `json:"attribute"`
	Status    Status      `json:"status"`
}

func (a Abort) String() string {
	return StatusInfo{Attribute: a.Attribute, Status: a.Status}.String()
}

// A Session is what is known of one connection that a [Terminator] has carried,
// or a passing one. It holds nothing of what was in the tunnel.
type Session struct {
	// Correlation is the client's SSTPCORRELATIONID: the CoId by which its
	// events of source RasSstp begin in Windows' event log.
	Correlation string `json:"correlation,omitempty"`
	// Client is where the client came from, Backend the gateway's name.
	Client  netip.AddrPort `json:"client"`
	Backend string         `json:"backend,omitempty"`
	// Mode is how it was carried, Resource what it asked for.
	Mode     Mode     `json:"mode"`
	Resource Resource `json:"resource"`
	Stage    Stage    `json:"stage"`
	// Start is when the connection was accepted, or handed over; Up when its
	// CALL_CONNECTED came; End when it ended, and zero while it lasts.
	Start time.Time `json:"start"`
	Up    time.Time `json:"up,omitzero"`
	End   time.Time `json:"end,omitzero"`

	// ServerName is the name the client asked for in TLS; TLS and Cipher are what
	// was agreed on; Resumed says that an earlier TLS session was taken up.
	ServerName string `json:"server_name,omitempty"`
	TLS        string `json:"tls,omitempty"`
	Cipher     string `json:"cipher,omitempty"`
	Resumed    bool   `json:"resumed,omitempty"`
	// Served is the certificate that the client was shown, Gateway that of the
	// gateway, if TLS goes on to it, and Expected the one that the gateway is
	// known to be configured with; each zero if there is none.
	Served   Fingerprint `json:"served,omitzero"`
	Gateway  Fingerprint `json:"gateway_leaf,omitzero"`
	Expected Fingerprint `json:"expected,omitzero"`

	// Status is the HTTP status of the gateway's answer; 0 before it.
	Status int `json:"status,omitempty"`
	// Offered are the hashes that the gateway let the client choose from.
	Offered Hashes `json:"-"`
	// Reported is the hash of the certificate that the client says it saw.
	Reported CertHash `json:"reported,omitzero"`
	// BadNonce says that the client's nonce wasn't the gateway's.
	BadNonce bool `json:"bad_nonce,omitempty"`
	Auth     Auth `json:"auth,omitzero"`
	// LastPPP is the last frame of PPP before the call was connected, "LCP
	// Terminate-Request from gateway" say.
	LastPPP string `json:"last_ppp,omitempty"`
	// Aborted and Disconnected are the first CALL_ABORT and CALL_DISCONNECT.
	Aborted      *Abort `json:"aborted,omitempty"`
	Disconnected *Abort `json:"disconnected,omitempty"`
	// Malformed says who sent what isn't SSTP.
	Malformed Peer `json:"malformed,omitempty"`
	// Unanswered says whose last ECHO_REQUEST has had no answer.
	Unanswered Peer `json:"unanswered,omitempty"`

	// First is who ended the connection, How a word for it: done, reset, idle,
	// backend_down or closing.
	First Peer   `json:"ended_by,omitempty"`
	How   string `json:"how,omitempty"`
	// Farewell is who was the first to say farewell in TLS (close_notify), as
	// nothing between the ends of TLS can; none if a connection ended without.
	Farewell Peer `json:"farewell,omitempty"`
	// Quiet is for how long nothing had moved when it ended.
	Quiet time.Duration `json:"quiet_ns,omitempty"`
	// Sent and Received are bytes to the gateway and to the client.
	Sent     uint64 `json:"sent"`
	Received uint64 `json:"received"`

	// Cause is why no gateway could be used; empty if one was. GatewayPort is where
	// TLS was looked for, if that isn't where SSTP goes; 0 otherwise.
	Cause       string `json:"cause,omitempty"`
	GatewayPort uint16 `json:"gateway_port,omitempty"`

	// Finding is what is to be said of it.
	Finding Finding `json:"finding"`
}

// Took returns how long it lasted, or has lasted until now.
func (s *Session) Took(now time.Time) time.Duration {
	if s.End.IsZero() {
		return now.Sub(s.Start)
	}
	return s.End.Sub(s.Start)
}

// Passed returns the Session of a connection that was passed through unopened,
// from what an engine knows of it: its client, its backend, how it was carried,
// when it began, how long it took and for how long nothing had moved at its end.
func Passed(f lb.Flow, backend string, start time.Time, took, quiet time.Duration, c lb.Carried) Session {
	s := Session{
		Client: f.Client, Backend: backend, Mode: ModePassthrough, Stage: StageOpaque,
		Start: start, End: start.Add(took), Quiet: quiet,
	}
	s.ended(c)
	s.Finding = s.judge()
	return s
}

// ended takes note of how the connection ended.
func (s *Session) ended(c lb.Carried) {
	s.How, s.Sent, s.Received = c.End, c.Sent, c.Received
	switch c.First {
	case "client":
		s.First = PeerClient
	case "backend":
		s.First = PeerGateway
	default:
		s.First = PeerBalancer
	}
}

// A Mode is what a balancer does with the TLS of a connection.
type Mode uint8

const (
	// ModeOffload ends TLS, and speaks plain HTTP to gateways (UseHttps = 0).
	ModeOffload Mode = iota
	// ModeReencrypt ends TLS, and speaks TLS to gateways.
	ModeReencrypt
	// ModePassthrough leaves TLS to the gateways.
	ModePassthrough
)

func (m Mode) String() string {
	switch m {
	case ModeOffload:
		return "offload"
	case ModeReencrypt:
		return "reencrypt"
	case ModePassthrough:
		return "passthrough"
	}
	return "unknown"
}

// MarshalText returns the Mode as String does.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }
