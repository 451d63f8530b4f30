package sstp

import (
	"fmt"
	"math"
	"net/netip"
	"time"
)

// A Finding is what a session's course says of its cause.
type Finding uint8

const (
	// FindingNone: nothing to say, or not yet.
	FindingNone Finding = iota
	// FindingWrongHash: the client saw the certificate that it was to see, and
	// the gateway aborted: it is configured with another hash.
	FindingWrongHash
	// FindingKeys: the hash is the one that the gateway is configured with, and
	// still it aborted: the keys differ that the authentication gave both sides.
	FindingKeys
	// FindingStaleLeaf: the client reported a certificate that was served before.
	FindingStaleLeaf
	// FindingInspection: it reported a certificate that nobody here has served.
	FindingInspection
	// FindingGatewayLeaf: it reported the gateway's own certificate.
	FindingGatewayLeaf
	// FindingNonce: its nonce isn't the one that the gateway had sent.
	FindingNonce
	// FindingHashProtocol: it chose a hash that the gateway hadn't offered.
	FindingHashProtocol
	// FindingNoBinding: its CALL_CONNECTED had no usable crypto binding.
	FindingNoBinding
	// FindingAuthFailed: the gateway refused the user.
	FindingAuthFailed
	// FindingAuthStalled: the authentication was begun and never ended.
	FindingAuthStalled
	// FindingNegotiation: PPP didn't come to an authentication.
	FindingNegotiation
	// FindingHTTP: the gateway answered the request by another status than 200.
	FindingHTTP
	// FindingNoAnswer: it didn't answer the request at all.
	FindingNoAnswer
	// FindingAborted: one side aborted for another reason.
	FindingAborted
	// FindingMalformed: one side sent what isn't SSTP.
	FindingMalformed
	// FindingIdle: the connection ended after a silence as long as some idle
	// timeout. A tunnel that lives is never silent for two minutes.
	FindingIdle
	// FindingPeerLost: a peer was asked whether it was still there, and wasn't.
	FindingPeerLost
	// FindingBalancer: the balancer cut it, for the backend was taken out of
	// service.
	FindingBalancer
	// FindingReset: the connection was reset within a tunnel.
	FindingReset
	// FindingNoBackend: there was no gateway for it.
	FindingNoBackend
	// FindingUntrusted: the gateway's own certificate wasn't accepted.
	FindingUntrusted
	// FindingNoTLSPort: IP-HTTPS goes on by TLS though SSTP's is offloaded, and the
	// gateway takes none at the port where it was looked for.
	FindingNoTLSPort

	findings
)

var findingNames = [findings]string{
	"none", "wrong_hash", "keys", "stale_leaf", "tls_inspection", "gateway_leaf", "nonce", "hash_protocol", "no_binding",
	"auth_failed", "auth_stalled", "negotiation", "http_status", "no_answer", "aborted", "malformed", "idle_timeout",
	"peer_lost", "balancer", "reset", "no_backend", "untrusted_gateway", "no_tls_port",
}

// String returns one word, joined by underscores, as metrics use it.
func (f Finding) String() string {
	if f < findings {
		return findingNames[f]
	}
	return "unknown"
}

// MarshalText returns the Finding as String does.
func (f Finding) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// soon is how long after CALL_CONNECTED a gateway that closes the connection
// without a word still does so for the binding.
const soon = 5 * time.Second

// judge says what the course of s tells. What needs the certificates that were
// served otherwise is left to Sessions.
func (s *Session) judge() Finding {
	switch {
	case s.Mode == ModePassthrough || s.Stage == StageOpaque:
		return s.judgeEnd()
	case s.Malformed != PeerNone:
		return FindingMalformed
	case s.Status == 0:
		return s.judgeSilence()
	case s.Status != 200:
		return FindingHTTP
	case s.Aborted != nil:
		return s.judgeAbort()
	case s.Disconnected != nil:
		return FindingNone
	case s.Stage < StageBound:
		return s.judgeSetUp()
	case s.Stage == StageBound && s.First == PeerGateway && s.End.Sub(s.Up) < soon:
		return s.judgeBinding() // some servers close without an abort
	}
	return s.judgeEnd()
}

func (s *Session) judgeSilence() Finding {
	if s.First == PeerClient && s.End.Sub(s.Start) < HTTPTimeout-soon {
		return FindingNone // it left of its own will
	}
	return FindingNoAnswer
}

func (s *Session) judgeAbort() Finding {
	a := s.Aborted
	switch {
	case a.By == PeerGateway && s.Stage >= StageBound && a.Attribute == AttrBinding && a.Status == StatusValueNotSupported:
		return s.judgeBinding()
	case a.By == PeerGateway && s.Stage >= StageBound && (s.Reported.IsZero() ||
		a.Status == StatusAttributeNotSupportedInMessage || a.Status == StatusRequiredAttributeMissing):
		return FindingNoBinding
	case a.By == PeerGateway && s.Stage == StageBound && s.End.Sub(s.Up) < soon+AbortTimeout1:
		return s.judgeBinding() // servers that say it in their own words
	case a.Status == StatusNegotiationTimeout && s.Stage < StageBound:
		return s.judgeWait()
	case s.Auth.Result == AuthFailed:
		return FindingAuthFailed
	case s.wasProbe():
		return FindingNone
	}
	return FindingAborted
}

// wasProbe reports whether the client gave its call up in peace before PPP began, as
// probes do that look for free ports.
func (s *Session) wasProbe() bool {
	a := s.Aborted
	return a != nil && a.By == PeerClient && a.Status == StatusNoError && s.Stage == StageAcknowledged && s.LastPPP == ""
}

// judgeBinding says why a binding wasn't accepted, as far as s itself knows.
func (s *Session) judgeBinding() Finding {
	switch {
	case s.Reported.IsZero():
		return FindingNoBinding
	case s.BadNonce:
		return FindingNonce
	case s.Offered != 0 && s.Reported.Hash&s.Offered == 0:
		return FindingHashProtocol
	}
	return FindingWrongHash // to be looked into by Sessions
}

// judgeSetUp is for a connection that ended before CALL_CONNECTED, without an
// abort.
func (s *Session) judgeSetUp() Finding {
	switch {
	case s.Auth.Result == AuthFailed:
		return FindingAuthFailed
	case s.How == "idle" || s.End.Sub(s.Start) >= NegotiationTimeout-soon:
		return s.judgeWait()
	case s.How == "backend_down" || s.How == "closing":
		return FindingBalancer
	case s.First == PeerGateway:
		return FindingNegotiation
	}
	return FindingNone
}

// judgeWait says what was waited for in vain.
func (s *Session) judgeWait() Finding {
	switch s.Auth.Result {
	case AuthBegun:
		return FindingAuthStalled
	case AuthFailed:
		return FindingAuthFailed
	}
	return FindingNegotiation
}

// judgeEnd is for the end of a tunnel that was up, as far as could be seen.
func (s *Session) judgeEnd() Finding {
	switch {
	case s.How == "idle":
		return FindingIdle
	case s.How == "backend_down" || s.How == "closing":
		return FindingBalancer
	case s.Unanswered != PeerNone && s.Quiet >= HelloTimeout-soon:
		return FindingPeerLost
	case s.First == PeerClient && s.Farewell == PeerClient:
		return FindingNone // it left in order, if not by the rules of SSTP
	case looksLikeTimeout(s.Quiet):
		return FindingIdle
	case s.How == "reset" && s.Stage >= StageBound && s.Mode != ModePassthrough:
		return FindingReset
	}
	return FindingNone
}

// looksLikeTimeout reports whether a silence is as long as timeouts are: a round
// number of seconds, and some. Both peers of a living tunnel break a silence of 60
// seconds, so an end within one that is shorter is no timeout of theirs.
func looksLikeTimeout(quiet time.Duration) bool {
	const least = 3 * time.Second
	if quiet < least {
		return false
	}
	seconds := quiet.Seconds()
	over := seconds - math.Floor(seconds)
	// A timer fires late, never early, but by what its own clock says.
	exact := over < 0.25 || over > 0.97
	n := int(math.Round(seconds))
	switch {
	case n >= 120: // no tunnel that lives is as silent
		return true
	case n%30 == 0 || n%20 == 0:
		return over < 0.5 || over > 0.97
	case n < 60:
		return exact && (n%5 == 0 || n == 3 || n == 4)
	}
	return exact && n%10 == 0
}

// Network returns the network of the client, for findings that are about it: the
// /24, or the /48 of IPv6.
func (s *Session) Network() netip.Prefix {
	bits := 48
	if s.Client.Addr().Is4() {
		bits = 24
	}
	p, _ := s.Client.Addr().WithZone("").Prefix(bits) // zero for no address
	return p
}

// Explain says in words what was found, and what to do about it; fix is empty if
// there is nothing to be done.
func (s *Session) Explain() (what, fix string) {
	b := s.Backend
	switch s.Finding {
	case FindingWrongHash:
		what = fmt.Sprintf("the client saw the certificate served here (%s), and gateway %s expects another one", s.Reported, b)
		if !s.Expected.IsZero() {
			what += fmt.Sprintf(" (%v)", s.Expected)
		}
		return what, s.hashCommand()
	case FindingKeys:
		return fmt.Sprintf("the certificate is the one that gateway %s expects, but the keys from the user's authentication differ", b),
			"see that the RADIUS server returns MS-MPPE keys to the gateway, and that client and server use the same authentication method"
	case FindingStaleLeaf:
		return fmt.Sprintf("the client reported a certificate that was served here earlier (%s), and gateway %s knows it no more", s.Reported, b),
			"a TLS session was resumed across a renewal, or the gateway's hash was changed too early: the client succeeds when it connects anew; keep session tickets off"
	case FindingInspection:
		return fmt.Sprintf("the client saw a certificate (%s) that is not served here: TLS is inspected between here and network %v", s.Reported, s.Network()),
			"exempt this service from TLS inspection in that network"
	case FindingGatewayLeaf:
		return fmt.Sprintf("the client reported the certificate of gateway %s itself (%s), which isn't the one served here", b, s.Reported),
			"use one certificate here and at the gateways, or set the hash of the one served here at the gateway"
	case FindingNonce:
		return "the client sent another nonce than the gateway's: it, or something before it, is broken or replays", ""
	case FindingHashProtocol:
		return fmt.Sprintf("the client used %v, and gateway %s offers %v", s.Reported.Hash, b, s.Offered), "offer the hash at the gateway, or update the client"
	case FindingNoBinding:
		return "the client's CALL_CONNECTED had no crypto binding that the gateway could read", "update the client"
	case FindingAuthFailed:
		return "gateway " + b + " refused the user: " + s.Auth.String(), "look at the RADIUS server's log, or the gateway's, for the reason"
	case FindingAuthStalled:
		return "the authentication got no answer: the last frame was " + s.LastPPP, "see whether the gateway reaches its RADIUS server, and how long that takes"
	case FindingNegotiation:
		return "PPP came to no authentication: " + s.last(), "see that client and gateway allow a common authentication method"
	case FindingHTTP:
		return fmt.Sprintf("gateway %s answered with HTTP status %d: %s", b, s.Status, meaning(s.Status)), httpFix(s.Status)
	}
	return s.explainEnd()
}

// explainEnd is Explain for the findings that are about a connection's end.
func (s *Session) explainEnd() (what, fix string) {
	b := s.Backend
	quiet := s.Quiet.Round(100 * time.Millisecond)
	switch s.Finding {
	case FindingNoAnswer:
		return fmt.Sprintf("gateway %s didn't answer the request", b), "see whether the SSTP service of the gateway works"
	case FindingAborted:
		return fmt.Sprintf("the %v aborted the call: %v", s.Aborted.By, s.Aborted), ""
	case FindingMalformed:
		return fmt.Sprintf("the %v sent what isn't SSTP", s.Malformed), ""
	case FindingIdle:
		return fmt.Sprintf("the connection was ended by the %v %v after the last byte, as by an idle timeout: SSTP's own is 2 minutes", s.First, quiet),
			"raise the idle timeout of what is on the way to over 2 minutes, 5 or more are better"
	case FindingPeerLost:
		return fmt.Sprintf("the %v asked whether the other side is still there, and had no answer for %v", s.Unanswered, quiet),
			""
	case FindingBalancer:
		return fmt.Sprintf("the balancer ended it, as gateway %s went down or was taken out of service", b), ""
	case FindingReset:
		return fmt.Sprintf("the connection was reset by the %v", s.First), ""
	case FindingNoBackend:
		if s.Cause != "" {
			return "there was no gateway for it: " + s.Cause, "see aovlb status"
		}
		return "there was no gateway for it", "see aovlb status"
	case FindingNoTLSPort:
		return fmt.Sprintf("IP-HTTPS can't be offloaded, it goes on by TLS, and gateway %s takes none at port %d: %s", b, s.GatewayPort, s.Cause),
			"set gateway.port of the listener's tls to the port at which gateways take TLS, or leave ip_https out"
	case FindingUntrusted:
		return fmt.Sprintf("the certificate of gateway %s itself isn't accepted here", b), "set ca_file, server_name or pins to what the gateway serves"
	}
	switch {
	case s.End.IsZero() && s.Stage >= StageBound:
		return "connected", ""
	case s.End.IsZero():
		return "being set up: " + s.last(), ""
	case s.wasProbe():
		return "the client gave the call up once it was accepted, as a probe does", ""
	case s.Disconnected != nil:
		return fmt.Sprintf("the %v disconnected", s.Disconnected.By), ""
	case s.Mode == ModePassthrough:
		return fmt.Sprintf("the %v ended it, %v after the last byte", s.First, quiet), ""
	}
	return fmt.Sprintf("the %v ended it", s.First), ""
}

// hashCommand returns the command that has the gateway expect what is served. It
// wants SHA-256, even if the client reported SHA-1. Enable-SstpOffload sets UseHttps
// to 0 too, so it isn't for gateways that TLS goes on to.
func (s *Session) hashCommand() string {
	if s.Mode == ModeReencrypt {
		return fmt.Sprintf("on %s: run what is printed by: aovlb cert hash --powershell --restart %v", s.Backend, s.Served)
	}
	return fmt.Sprintf("on %s: Enable-SstpOffload -CertificateHash %v -Restart", s.Backend, s.Served)
}

// last says what came last.
func (s *Session) last() string {
	if s.LastPPP != "" {
		return "the last frame was " + s.LastPPP
	}
	return "it came as far as " + s.Stage.String()
}

func httpFix(status int) string {
	switch status {
	case 503:
		return "see whether the gateway has free SSTP ports, and its SstpSvc service runs"
	case 404:
		return "see whether RemoteAccess runs on the gateway, with SSTP enabled"
	case 400:
		return "see whether the gateway's port expects TLS: offload needs UseHttps = 0, re-encryption UseHttps = 1"
	}
	return ""
}
