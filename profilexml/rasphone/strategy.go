package rasphone

import (
	"fmt"
	"strconv"
	"strings"
)

// A Strategy is VpnStrategy: which protocols a connection tries, and in which
// order. The numbers are those of dwVpnStrategy in ras.h.
//
// Windows changes it when a connection succeeds with another protocol than the
// first, unless the registry says otherwise (VPNStrategyUsageDisabled).
type Strategy uint32

// All strategies. 10 and 11 are unassigned.
const (
	Default      Strategy = 0  // IKEv2, SSTP, PPTP, L2TP, whichever worked last first
	PPTPOnly     Strategy = 1  // PPTP
	PPTPFirst    Strategy = 2  // PPTP, IKEv2, SSTP, L2TP
	L2TPOnly     Strategy = 3  // L2TP
	L2TPFirst    Strategy = 4  // L2TP, IKEv2, SSTP, PPTP
	SSTPOnly     Strategy = 5  // SSTP
	SSTPFirst    Strategy = 6  // SSTP, IKEv2, PPTP, L2TP
	IKEv2Only    Strategy = 7  // IKEv2
	IKEv2First   Strategy = 8  // IKEv2, SSTP, PPTP, L2TP
	GREOnly      Strategy = 9  // GRE; PowerShell can't read such a connection
	PPTPSSTP     Strategy = 12 // PPTP, SSTP
	L2TPSSTP     Strategy = 13 // L2TP, SSTP
	IKEv2SSTP    Strategy = 14 // IKEv2, SSTP: what most are after
	ProtocolList Strategy = 15 // a list in the profile; PowerShell can't read such a connection
)

var strategyNames = map[Strategy]string{
	Default: "Default", PPTPOnly: "PptpOnly", PPTPFirst: "PptpFirst", L2TPOnly: "L2tpOnly", L2TPFirst: "L2tpFirst",
	SSTPOnly: "SstpOnly", SSTPFirst: "SstpFirst", IKEv2Only: "Ikev2Only", IKEv2First: "Ikev2First", GREOnly: "GreOnly",
	PPTPSSTP: "PptpSstp", L2TPSSTP: "L2tpSstp", IKEv2SSTP: "Ikev2Sstp", ProtocolList: "ProtocolList",
}

var strategyProtocols = map[Strategy]string{
	Default:  "IKEv2, SSTP, PPTP and L2TP, beginning with what worked last",
	PPTPOnly: "PPTP only", PPTPFirst: "PPTP, then IKEv2, SSTP and L2TP",
	L2TPOnly: "L2TP only", L2TPFirst: "L2TP, then IKEv2, SSTP and PPTP",
	SSTPOnly: "SSTP only", SSTPFirst: "SSTP, then IKEv2, PPTP and L2TP",
	IKEv2Only: "IKEv2 only", IKEv2First: "IKEv2, then SSTP, PPTP and L2TP",
	GREOnly: "GRE only", PPTPSSTP: "PPTP, then SSTP", L2TPSSTP: "L2TP, then SSTP", IKEv2SSTP: "IKEv2, then SSTP",
	ProtocolList: "the protocols that the profile lists",
}

// String returns the name of the strategy, as [ParseStrategy] reads it.
func (s Strategy) String() string {
	if n, ok := strategyNames[s]; ok {
		return n
	}
	return strconv.FormatUint(uint64(s), 10)
}

// Protocols says in words what is tried in which order.
func (s Strategy) Protocols() string {
	if p, ok := strategyProtocols[s]; ok {
		return p
	}
	return "a value that Windows doesn't have"
}

// ParseStrategy reads a strategy by its name in any case, such as Ikev2Sstp, or
// by its number.
func ParseStrategy(text string) (Strategy, error) {
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		if s := Strategy(n); strategyNames[s] != "" {
			return s, nil
		}
		return 0, fmt.Errorf("VpnStrategy can't be %d: %s", n, strategyChoice())
	}
	for s, n := range strategyNames {
		if strings.EqualFold(n, text) {
			return s, nil
		}
	}
	return 0, fmt.Errorf("VpnStrategy can't be %.60q: %s", text, strategyChoice())
}

func strategyChoice() string {
	return "it can be Ikev2Sstp (14), Ikev2First (8), Ikev2Only (7), SstpFirst (6), SstpOnly (5) and others"
}

// Setting returns the setting that gives an entry the strategy.
func (s Strategy) Setting() Setting {
	return Setting{Key: "VpnStrategy", Value: strconv.FormatUint(uint64(s), 10)}
}

// Strategy returns the strategy of the entry. It fails if there is none, or no
// number.
func (e Entry) Strategy() (Strategy, error) {
	v, ok := e.Get("VpnStrategy")
	if !ok {
		return 0, fmt.Errorf("entry %q: VpnStrategy: %w", e.Name(), ErrNoKey)
	}
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("entry %q: VpnStrategy is %.60q, and must be a number", e.Name(), v)
	}
	return Strategy(n), nil
}
