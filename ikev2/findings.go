package ikev2

import (
	"fmt"
	"net/netip"
	"time"
)

// A Severity says how much a Finding matters.
type Severity uint8

const (
	// SeverityInfo is something that may be of interest; all is well.
	SeverityInfo Severity = iota
	// SeverityWarning is something that works, but should be changed.
	SeverityWarning
	// SeverityError is something that kept a client from its tunnel.
	SeverityError
)

func (s Severity) String() string {
	switch s {
	case SeverityInfo:
		return "info"
	case SeverityWarning:
		return "warning"
	case SeverityError:
		return "error"
	}
	return fmt.Sprintf("Severity(%d)", uint8(s))
}

// MarshalText returns the Severity as String does.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A FindingID says what was found. They don't change, so programs may rely on
// them.
type FindingID string

// What Report finds.
const (
	// FindingNoAnswer: IKE_SA_INIT was never answered. Windows says 809.
	FindingNoAnswer FindingID = "no-answer"
	// FindingPortUnreachable: the gateway's address says that nobody listens.
	FindingPortUnreachable FindingID = "port-unreachable"
	// FindingProhibited: a filter says that it rejects IKE.
	FindingProhibited FindingID = "prohibited"
	// FindingNever4500: IKE_SA_INIT was answered on port 500, and no IKE_AUTH
	// followed on port 4500. Windows says 809.
	FindingNever4500 FindingID = "never-4500"
	// FindingAuthUnanswered: IKE_AUTH was sent whole and never answered.
	// Windows says 809.
	FindingAuthUnanswered FindingID = "auth-unanswered"
	// FindingAuthStalled: the gateway answered some of the IKE_AUTH exchange and
	// then no more, as when it waits for NPS in vain.
	FindingAuthStalled FindingID = "auth-stalled"
	// FindingAuthIPFragments: IKE_AUTH was sent in IP fragments and never
	// answered, or never came whole. Windows says 809.
	FindingAuthIPFragments FindingID = "auth-ip-fragments"
	// FindingIKEFragmentsMissing: IKE_AUTH was sent in IKE fragments, some of
	// which never came. Windows says 809.
	FindingIKEFragmentsMissing FindingID = "ike-fragments-missing"
	// FindingSplitGateways: IKE_SA_INIT came to one gateway and IKE_AUTH to
	// another. Windows says 809.
	FindingSplitGateways FindingID = "split-gateways"
	// FindingNoProposal: the gateway accepts none of the client's proposals.
	// Windows says 13868, or 800 if its VPN type is automatic.
	FindingNoProposal FindingID = "no-proposal"
	// FindingRefused: the gateway refused IKE_SA_INIT by another error.
	FindingRefused FindingID = "refused"
	// FindingAuthRefused: IKE_AUTH was answered by a refusal. Windows says
	// 13801, 13806, 691, 812 or 853.
	FindingAuthRefused FindingID = "auth-refused"
	// FindingClientStopped: the gateway answered IKE_AUTH, and the client made
	// nothing of it, as when it doesn't trust the gateway's certificate.
	// Windows says 13801.
	FindingClientStopped FindingID = "client-stopped"
	// FindingEAPStopped: the gateway's last answer was a step of EAP, and the
	// client didn't go on.
	FindingEAPStopped FindingID = "eap-stopped"
	// FindingNeverUsed: credentials were accepted, and within seconds the SA was
	// given up, without a packet of the client in its tunnel.
	FindingNeverUsed FindingID = "never-used"
	// FindingHalfOpenLimit: a client that returned its cookie was not answered:
	// the gateway has too many half-open SAs, of this address or in all.
	FindingHalfOpenLimit FindingID = "half-open-limit"
	// FindingCookie: the gateway asks for cookies.
	FindingCookie FindingID = "cookie"
	// FindingInvalidKE: the client guessed another group than the gateway wants.
	FindingInvalidKE FindingID = "invalid-ke"
	// FindingFragmentationOneSide: only one side announces IKE fragmentation, so
	// large messages go in IP fragments.
	FindingFragmentationOneSide FindingID = "fragmentation-one-side"
	// FindingIPFragments: large messages went in IP fragments, and arrived.
	FindingIPFragments FindingID = "ip-fragments"
	// FindingPacketTooBig: a router says that packets are too large for a link.
	FindingPacketTooBig FindingID = "packet-too-big"
	// FindingWeakSuite: what was agreed on is weak.
	FindingWeakSuite FindingID = "weak-suite"
	// FindingSlow: answers took seconds.
	FindingSlow FindingID = "slow"
	// FindingGatewaySilent: an established gateway stopped answering.
	FindingGatewaySilent FindingID = "gateway-silent"
	// FindingClientSilent: an established client stopped answering.
	FindingClientSilent FindingID = "client-silent"
	// FindingMoved: a client changed its address and kept its tunnel.
	FindingMoved FindingID = "moved"
	// FindingMoveLost: a client changed its address, and nobody answered there.
	FindingMoveLost FindingID = "move-lost"
	// FindingUnpairedNAT: ports 500 and 4500 of a client come from different
	// addresses.
	FindingUnpairedNAT FindingID = "unpaired-nat"
	// FindingTruncated: the capture has only the beginnings of some messages.
	FindingTruncated FindingID = "truncated"
)

// A Finding is something that a Report found: what happened, how that shows, and
// what to do.
type Finding struct {
	ID       FindingID `json:"id"`
	Severity Severity  `json:"severity"`
	// Title is one line, What some sentences.
	Title string `json:"title"`
	What  string `json:"what"`
	// Windows are the error codes that a Windows client shows for it.
	Windows []string `json:"windows,omitempty"`
	// Evidence is where it shows, the first few places.
	Evidence []Evidence `json:"evidence,omitempty"`
	// Advice is what to do, in order.
	Advice []Advice `json:"advice,omitempty"`
	// Times is how many conversations it was found in; SPIs are those of the
	// first few, Clients their addresses.
	Times   int          `json:"times"`
	SPIs    []string     `json:"spis,omitempty"`
	Clients []netip.Addr `json:"clients,omitempty"`
}

// Evidence is a place where something shows.
type Evidence struct {
	// Packet is its number in the capture; 0 if it has none.
	Packet int `json:"packet,omitempty"`
	// Time is when that was, At how long after the first event.
	Time time.Time `json:"time"`
	At   Seconds   `json:"at"`
	// Text says what is there.
	Text string `json:"text"`
}

// Seconds is a time.Duration that is written as seconds.
type Seconds time.Duration

// MarshalText writes seconds with six digits: "1.024000".
func (s Seconds) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s Seconds) String() string { return fmt.Sprintf("%.6f", time.Duration(s).Seconds()) }

// A Place is where Advice is to be followed.
type Place string

// Places.
const (
	OnGateway  Place = "gateway"
	OnClient   Place = "client"
	OnNetwork  Place = "network"
	OnBalancer Place = "balancer"
	OnNPS      Place = "NPS"
)

// Advice is one thing to do about a Finding.
type Advice struct {
	// Where it is to be done.
	Where Place `json:"where"`
	// Do says what.
	Do string `json:"do"`
	// Commands do it, or show what is needed to decide. On Windows they are
	// PowerShell, run as administrator. HOST stands for the gateway's public
	// name.
	Commands []string `json:"commands,omitempty"`
}
