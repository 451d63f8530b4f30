package profilexml

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A Profile is a VPN profile of Windows as Go values. Fields have the names of
// the elements of ProfileXML, and what they mean is in [Content]. A nil pointer,
// an empty string or list leaves the element out.
//
// [Profile.Document] makes XML of it, and [Document.Profile] reads it back.
type Profile struct {
	ProfileName                      string                  // ignored by Windows
	EdpModeID                        string                  `vpn:"EdpModeId"` // retired
	RememberCredentials              *bool                   // keeps the user's password
	AlwaysOn                         *bool                   // connects without being asked
	AlwaysOnActive                   *bool                   // whether "connect automatically" is ticked at first
	DeviceTunnel                     *bool                   // connects before anybody logs on
	LockDown                         *bool                   // allows no other network
	DNSSuffix                        []string                `vpn:"DnsSuffix"` // the first is the connection's own
	TrustedNetworkDetection          []string                // DNS suffixes of networks that need no VPN
	DisableAdvancedOptionsEditButton *bool                   // greys out the button that edits
	DisableDisconnectButton          *bool                   // greys out the button that disconnects
	ByPassForLocal                   *bool                   // reserved
	RequireVPNClientAppUI            *bool                   `vpn:"RequireVpnClientAppUI"` // plug-ins only
	DeviceCompliance                 *DeviceCompliance       // Entra conditional access
	Proxy                            *Proxy                  // the web proxy, with ForceTunnel
	APNBinding                       *APNBinding             // reserved
	PluginProfile                    *PluginProfile          // an app's VPN
	NativeProfile                    *NativeProfile          // Windows' own VPN
	AppTrigger                       []AppTrigger            // apps that connect the VPN
	Route                            []Route                 // networks behind the VPN
	TrafficFilter                    []TrafficFilter         // what may use the VPN
	DomainNameInformation            []DomainNameInformation // which DNS servers answer for what
	RegisterDNS                      *bool                   // registers the VPN's address in DNS
	NetworkOutageTime                *uint32                 // in seconds; 0 is no limit
	IPv4InterfaceMetric              *uint32                 // 1 to 9999
	IPv6InterfaceMetric              *uint32                 // 1 to 9999
	UseRasCredentials                *bool                   // uses the VPN's credentials for servers behind it
	DataEncryption                   string                  // None, Require, Max or Optional
	PrivateNetwork                   *bool                   // the private profile of the firewall
	DisableIKEv2Fragmentation        *bool                   // sends IKE messages whole
}

// DeviceCompliance is Entra conditional access.
type DeviceCompliance struct {
	Enabled bool // turns it on; always written
	Sso     *Sso // the certificate for servers behind the VPN
}

// Sso says which certificate is used behind the VPN.
type Sso struct {
	Enabled    bool     // turns it on; always written
	EKU        []string `vpn:"Eku"` // object identifiers
	IssuerHash []string // SHA-1 hashes of issuers
}

// Proxy is a web proxy.
type Proxy struct {
	Manual        *ManualProxy // counts if both are there
	AutoConfigURL string       `vpn:"AutoConfigUrl"` // a PAC file
}

// ManualProxy is a proxy by address.
type ManualProxy struct {
	Server string // host:port
}

// APNBinding is reserved, and has no effect.
type APNBinding struct {
	ProviderID           string `vpn:"ProviderId"` // reserved
	AccessPointName      string // reserved
	UserName             string // reserved
	Password             string // reserved; secret
	IsCompressionEnabled *bool  // reserved
	AuthenticationType   string // reserved
}

// PluginProfile is a VPN app from the Microsoft Store.
type PluginProfile struct {
	ServerURLList           []string `vpn:"ServerUrlList"` // URLs or names of gateways
	CustomConfiguration     string   // XML, which is escaped when it is written
	PluginPackageFamilyName string   // as Get-AppxPackage shows it
}

// NativeProfile is the VPN that Windows has built in.
type NativeProfile struct {
	Servers                       []Server       // the gateways; at least one
	RoutingPolicyType             string         // SplitTunnel or ForceTunnel
	NativeProtocolType            string         // IKEv2, SSTP, Automatic, ProtocolList, L2TP or PPTP
	ProtocolList                  *ProtocolList  // with NativeProtocolType ProtocolList
	Authentication                Authentication // how the user or the computer is known
	CryptographySuite             *Suite         // the one proposal of IKEv2; nil for Windows' defaults
	DisableClassBasedDefaultRoute *bool          // leaves out the route of the address class
	PlumbIKEv2TSAsRoutes          *bool          // routes of the gateway's traffic selectors
	L2TPPSK                       string         `vpn:"L2tpPsk"` // secret, in clear
}

// A Server is a gateway.
type Server struct {
	Address string // a name or an address
	Name    string // for people; Windows makes it Address if it is empty
}

// MarshalText writes a server as Servers has it: address;name.
func (s Server) MarshalText() ([]byte, error) {
	if strings.ContainsAny(s.Address+s.Name, ";,") {
		return nil, fmt.Errorf("the server %q has a comma or a semicolon in its name", s.Address)
	}
	if s.Name == "" {
		return []byte(s.Address), nil
	}
	return []byte(s.Address + ";" + s.Name), nil
}

// UnmarshalText reads what MarshalText writes.
func (s *Server) UnmarshalText(b []byte) error {
	s.Address, s.Name, _ = strings.Cut(string(b), ";")
	s.Address, s.Name = strings.TrimSpace(s.Address), strings.TrimSpace(s.Name)
	if s.Address == "" {
		return errors.New("a server has no address")
	}
	return nil
}

// ProtocolList are protocols in the order in which they are tried.
type ProtocolList struct {
	NativeProtocol   []NativeProtocol // the first is tried first
	RetryTimeInHours *uint32          // at most 500000
}

// NativeProtocol is one of a ProtocolList.
type NativeProtocol struct {
	Type string // Pptp, L2tp, Ikev2 or Sstp
}

// Authentication says how the user or the computer is known.
type Authentication struct {
	UserMethod    string // Eap or MSChapv2
	MachineMethod string // Certificate, or Eap beside the UserMethod Eap
	EAP           *EAP   `vpn:"Eap"`
}

// AppTrigger is an app whose start connects the VPN.
type AppTrigger struct{ App App }

// An App is named by its package family name or by the path of its program.
type App struct {
	ID string `vpn:"Id"`
}

// A Route is a network that is reached through the VPN, or isn't.
type Route struct {
	Address        netip.Addr // of the network
	PrefixSize     uint8      // in bits; always written
	ExclusionRoute *bool      // keeps the network out of the VPN
	Metric         *uint32    // Windows reads back 1 if there is none
}

// RouteTo returns the route to a network, as Windows reads it back.
func RouteTo(p netip.Prefix) Route {
	return Route{Address: p.Masked().Addr(), PrefixSize: uint8(max(p.Bits(), 0)), Metric: new(uint32(1))}
}

// Prefix returns the network.
func (r Route) Prefix() netip.Prefix { return netip.PrefixFrom(r.Address, int(r.PrefixSize)) }

// A TrafficFilter is traffic that may use the VPN.
type TrafficFilter struct {
	App                 *App     // whose traffic it is; nil for every app's
	Claims              string   // SDDL
	Protocol            *uint32  // 0 to 255
	LocalPortRanges     []string // such as 80, 20-50
	RemotePortRanges    []string // such as 80, 20-50
	LocalAddressRanges  []string // addresses, prefixes, ranges
	RemoteAddressRanges []string // addresses, prefixes, ranges
	RoutingPolicyType   string   // SplitTunnel or ForceTunnel; with App
	Direction           string   // Outbound or Inbound
}

// DomainNameInformation says which DNS servers answer for a name.
type DomainNameInformation struct {
	DomainName      string       // .suffix, a host, or a dot for all
	DNSServers      []netip.Addr `vpn:"DnsServers"` // none keeps the name out of the VPN's DNS
	WebProxyServers string       // there can be one
	AutoTrigger     *bool        // connects when the name is looked up
	Persistent      *bool        // kept while not connected
}

// serversOf makes a list of servers as Windows reads them back.
func serversOf(names []string) []Server {
	list := make([]Server, len(names))
	for i, n := range names {
		list[i] = Server{n, n}
	}
	return list
}

// NewUserTunnel returns the profile of a user tunnel as it is recommended: IKEv2
// with the enhanced suite, always on, split tunnelling, EAP. What it lacks is
// for the caller to say: Route, DomainNameInformation, TrustedNetworkDetection.
func NewUserTunnel(eap EAP, servers ...string) *Profile {
	suite := EnhancedSuite()
	return &Profile{
		AlwaysOn: new(true),
		NativeProfile: &NativeProfile{
			Servers: serversOf(servers), RoutingPolicyType: "SplitTunnel", NativeProtocolType: "IKEv2",
			Authentication:    Authentication{UserMethod: "Eap", MachineMethod: "Eap", EAP: &eap},
			CryptographySuite: &suite, DisableClassBasedDefaultRoute: new(true),
		},
	}
}

// UseConditionalAccess has the profile work with Entra conditional access: users
// come with the short-lived certificate that Entra gives to devices that comply.
// Servers behind the VPN don't take that one, so that they are shown a
// certificate for client authentication from the issuers given, which are the
// roots of the company's own authorities; without any, they get none.
//
// EAP then takes certificates with the usage of conditional access alone, and
// from any issuer, for Entra's is in the cloud. The gateways must trust Entra's
// root.
func (p *Profile) UseConditionalAccess(issuers ...Thumbprint) {
	p.DeviceCompliance = &DeviceCompliance{Enabled: true}
	if len(issuers) > 0 {
		sso := &Sso{Enabled: true, EKU: []string{clientAuthOID}}
		for _, t := range issuers {
			sso.IssuerHash = append(sso.IssuerHash, strings.TrimSpace(t.String()))
		}
		p.DeviceCompliance.Sso = sso
	}
	if p.NativeProfile == nil || p.NativeProfile.Authentication.EAP == nil {
		return
	}
	filter := &p.NativeProfile.Authentication.EAP.Certificate
	filter.Issuers = nil
	if !slices.ContainsFunc(filter.EKUs, func(e EKU) bool { return e.OID == conditionalAccessOID }) {
		filter.EKUs = append(filter.EKUs, ConditionalAccessEKU())
	}
}

// NewDeviceTunnel returns the profile of a device tunnel as it is recommended:
// IKEv2 with the enhanced suite, and the certificate of the computer. It needs a
// Route for each server that a computer needs before logon.
func NewDeviceTunnel(servers ...string) *Profile {
	suite := EnhancedSuite()
	return &Profile{
		AlwaysOn: new(true), DeviceTunnel: new(true),
		NativeProfile: &NativeProfile{
			Servers: serversOf(servers), RoutingPolicyType: "SplitTunnel", NativeProtocolType: "IKEv2",
			Authentication:    Authentication{MachineMethod: "Certificate"},
			CryptographySuite: &suite, DisableClassBasedDefaultRoute: new(true),
		},
	}
}

// NewLockDown returns the profile of a LockDown VPN: the computer has no other
// network. All traffic goes through it.
func NewLockDown(servers ...string) *Profile {
	p := NewDeviceTunnel(servers...)
	p.DeviceTunnel, p.LockDown = nil, new(true)
	p.NativeProfile.RoutingPolicyType, p.NativeProfile.DisableClassBasedDefaultRoute = "ForceTunnel", nil
	return p
}

// NewPlugin returns the profile of a VPN app from the Microsoft Store. The
// configuration is XML of the app's own, and may be empty.
func NewPlugin(packageFamilyName, configuration string, servers ...string) *Profile {
	return &Profile{AlwaysOn: new(true), PluginProfile: &PluginProfile{
		ServerURLList: servers, CustomConfiguration: configuration, PluginPackageFamilyName: packageFamilyName,
	}}
}
