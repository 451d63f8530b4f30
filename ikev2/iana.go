package ikev2

import "fmt"

// Numbers of the IANA registry "Internet Key Exchange Version 2 (IKEv2)
// Parameters", as it stood in 2026. Numbers without a name here show as such.

// An ExchangeType says what a message is for.
type ExchangeType uint8

// Exchange types (RFC 7296, 5723, 9838, 9242, 9370).
const (
	ExchangeSAInit          ExchangeType = 34
	ExchangeAuth            ExchangeType = 35
	ExchangeCreateChildSA   ExchangeType = 36
	ExchangeInformational   ExchangeType = 37
	ExchangeSessionResume   ExchangeType = 38
	ExchangeGSAAuth         ExchangeType = 39
	ExchangeGSARegistration ExchangeType = 40
	ExchangeGSARekey        ExchangeType = 41
	ExchangeGSAInbandRekey  ExchangeType = 42
	ExchangeIntermediate    ExchangeType = 43
	ExchangeFollowupKE      ExchangeType = 44
)

var exchangeNames = [...]string{
	"IKE_SA_INIT", "IKE_AUTH", "CREATE_CHILD_SA", "INFORMATIONAL", "IKE_SESSION_RESUME", "GSA_AUTH",
	"GSA_REGISTRATION", "GSA_REKEY", "GSA_INBAND_REKEY", "IKE_INTERMEDIATE", "IKE_FOLLOWUP_KE",
}

func (t ExchangeType) String() string {
	if s := nameFrom(exchangeNames[:], int(t), int(ExchangeSAInit)); s != "" {
		return s
	}
	return fmt.Sprintf("exchange %d", uint8(t))
}

// nameFrom returns the name of number n in a list that starts with that of
// first, or "".
func nameFrom(names []string, n, first int) string {
	if n < first || n-first >= len(names) {
		return ""
	}
	return names[n-first]
}

// known reports whether t is one that a Microsoft or strongSwan peer sends.
func (t ExchangeType) known() bool {
	return t >= ExchangeSAInit && t <= ExchangeSessionResume || t == ExchangeIntermediate || t == ExchangeFollowupKE
}

// A PayloadType says what a payload holds.
type PayloadType uint8

// Payload types (RFC 7296 §3.2, 6467, 9838, 7383, 8019).
const (
	PayloadNone    PayloadType = 0
	PayloadSA      PayloadType = 33
	PayloadKE      PayloadType = 34
	PayloadIDi     PayloadType = 35
	PayloadIDr     PayloadType = 36
	PayloadCert    PayloadType = 37
	PayloadCertReq PayloadType = 38
	PayloadAuth    PayloadType = 39
	PayloadNonce   PayloadType = 40
	PayloadNotify  PayloadType = 41
	PayloadDelete  PayloadType = 42
	PayloadVendor  PayloadType = 43
	PayloadTSi     PayloadType = 44
	PayloadTSr     PayloadType = 45
	PayloadSK      PayloadType = 46
	PayloadCP      PayloadType = 47
	PayloadEAP     PayloadType = 48
	PayloadGSPM    PayloadType = 49
	PayloadIDg     PayloadType = 50
	PayloadGSA     PayloadType = 51
	PayloadKD      PayloadType = 52
	PayloadSKF     PayloadType = 53
	PayloadPS      PayloadType = 54
)

var payloadNames = [...]string{
	"SA", "KE", "IDi", "IDr", "CERT", "CERTREQ", "AUTH", "Nonce", "N", "D", "V", "TSi", "TSr", "SK", "CP", "EAP",
	"GSPM", "IDg", "GSA", "KD", "SKF", "PS",
}

func (t PayloadType) String() string {
	if t == PayloadNone {
		return "none"
	}
	if s := nameFrom(payloadNames[:], int(t), int(PayloadSA)); s != "" {
		return s
	}
	return fmt.Sprintf("payload %d", uint8(t))
}

// A ProtocolID says whose SPI or proposal it is.
type ProtocolID uint8

// Protocol IDs (RFC 7296 §3.3.1, 4595, 9838).
const (
	ProtocolNone             ProtocolID = 0
	ProtocolIKE              ProtocolID = 1
	ProtocolAH               ProtocolID = 2
	ProtocolESP              ProtocolID = 3
	ProtocolFCESPHeader      ProtocolID = 4
	ProtocolFCAuthentication ProtocolID = 5
	ProtocolGIKEUpdate       ProtocolID = 6
)

var protocolNames = [...]string{"none", "IKE", "AH", "ESP", "FC_ESP_HEADER", "FC_CT_AUTHENTICATION", "GIKE_UPDATE"}

func (p ProtocolID) String() string {
	if s := nameFrom(protocolNames[:], int(p), 0); s != "" {
		return s
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// An IDType says what kind of name an ID payload holds.
type IDType uint8

// Identification types (RFC 7296 §3.5, 4595, 7619).
const (
	IDIPv4     IDType = 1
	IDFQDN     IDType = 2
	IDRFC822   IDType = 3
	IDIPv6     IDType = 5
	IDDERDN    IDType = 9
	IDDERGN    IDType = 10
	IDKeyID    IDType = 11
	IDFCName   IDType = 12
	IDNullType IDType = 13
)

var idNames = [...]string{
	"", "ID_IPV4_ADDR", "ID_FQDN", "ID_RFC822_ADDR", "", "ID_IPV6_ADDR", "", "", "", "ID_DER_ASN1_DN", "ID_DER_ASN1_GN",
	"ID_KEY_ID", "ID_FC_NAME", "ID_NULL",
}

func (t IDType) String() string {
	if s := nameFrom(idNames[:], int(t), 0); s != "" {
		return s
	}
	return fmt.Sprintf("ID type %d", uint8(t))
}

// A CertEncoding says what a CERT or CERTREQ payload holds.
type CertEncoding uint8

// Certificate encodings (RFC 7296 §3.6, 4806, 7670).
const (
	CertPKCS7         CertEncoding = 1
	CertPGP           CertEncoding = 2
	CertDNSKey        CertEncoding = 3
	CertX509          CertEncoding = 4
	CertKerberos      CertEncoding = 6
	CertCRL           CertEncoding = 7
	CertARL           CertEncoding = 8
	CertSPKI          CertEncoding = 9
	CertX509Attribute CertEncoding = 10
	CertRawRSA        CertEncoding = 11
	CertHashURL       CertEncoding = 12
	CertHashURLBundle CertEncoding = 13
	CertOCSP          CertEncoding = 14
	CertRawPublicKey  CertEncoding = 15
)

var certNames = [...]string{
	"", "PKCS #7 wrapped X.509 certificate", "PGP certificate", "DNS signed key", "X.509 certificate - signature", "",
	"Kerberos token", "certificate revocation list", "authority revocation list", "SPKI certificate",
	"X.509 certificate - attribute", "raw RSA key", "hash and URL of X.509 certificate", "hash and URL of X.509 bundle",
	"OCSP content", "raw public key",
}

func (e CertEncoding) String() string {
	if s := nameFrom(certNames[:], int(e), 0); s != "" {
		return s
	}
	return fmt.Sprintf("certificate encoding %d", uint8(e))
}

// An AuthMethod says how an AUTH payload was made.
type AuthMethod uint8

// Authentication methods (RFC 7296 §3.8, 4754, 6467, 7619, 7427).
const (
	AuthRSA            AuthMethod = 1
	AuthSharedKey      AuthMethod = 2
	AuthDSS            AuthMethod = 3
	AuthECDSA256       AuthMethod = 9
	AuthECDSA384       AuthMethod = 10
	AuthECDSA521       AuthMethod = 11
	AuthSecurePassword AuthMethod = 12
	AuthNull           AuthMethod = 13
	AuthSignature      AuthMethod = 14
)

var authNames = [...]string{
	"", "RSA signature", "shared key", "DSS signature", "", "", "", "", "", "ECDSA with SHA-256 on P-256",
	"ECDSA with SHA-384 on P-384", "ECDSA with SHA-512 on P-521", "secure password", "NULL", "digital signature",
}

func (m AuthMethod) String() string {
	if s := nameFrom(authNames[:], int(m), 0); s != "" {
		return s
	}
	return fmt.Sprintf("authentication method %d", uint8(m))
}

// A HashAlgorithm is what a peer can sign with (RFC 7427 §4).
type HashAlgorithm uint16

// Hash algorithms of SIGNATURE_HASH_ALGORITHMS (RFC 7427, 8420, 9385).
const (
	HashSHA1        HashAlgorithm = 1
	HashSHA256      HashAlgorithm = 2
	HashSHA384      HashAlgorithm = 3
	HashSHA512      HashAlgorithm = 4
	HashIdentity    HashAlgorithm = 5
	HashStreebog256 HashAlgorithm = 6
	HashStreebog512 HashAlgorithm = 7
)

var hashNames = [...]string{"", "SHA1", "SHA2-256", "SHA2-384", "SHA2-512", "Identity", "STREEBOG_256", "STREEBOG_512"}

func (h HashAlgorithm) String() string {
	if s := nameFrom(hashNames[:], int(h), 0); s != "" {
		return s
	}
	return fmt.Sprintf("hash %d", uint16(h))
}

// A TSType says what a traffic selector selects by.
type TSType uint8

// Traffic selector types (RFC 7296 §3.13.1, 4595, 9478).
const (
	TSIPv4     TSType = 7
	TSIPv6     TSType = 8
	TSFC       TSType = 9
	TSSecLabel TSType = 10
)

var tsNames = [...]string{"TS_IPV4_ADDR_RANGE", "TS_IPV6_ADDR_RANGE", "TS_FC_ADDR_RANGE", "TS_SECLABEL"}

func (t TSType) String() string {
	if s := nameFrom(tsNames[:], int(t), int(TSIPv4)); s != "" {
		return s
	}
	return fmt.Sprintf("TS type %d", uint8(t))
}

// A ConfigType says what a CP payload wants.
type ConfigType uint8

// Configuration types (RFC 7296 §3.15).
const (
	ConfigRequest ConfigType = 1
	ConfigReply   ConfigType = 2
	ConfigSet     ConfigType = 3
	ConfigAck     ConfigType = 4
)

var configNames = [...]string{"CFG_REQUEST", "CFG_REPLY", "CFG_SET", "CFG_ACK"}

func (t ConfigType) String() string {
	if s := nameFrom(configNames[:], int(t), int(ConfigRequest)); s != "" {
		return s
	}
	return fmt.Sprintf("CFG type %d", uint8(t))
}

// A ConfigAttributeType says what an attribute of a CP payload is.
type ConfigAttributeType uint16

// Configuration attributes (RFC 7296 §3.15.1 and later ones), and those of
// Microsoft's private use that Windows asks for.
const (
	ConfigIPv4Address         ConfigAttributeType = 1
	ConfigIPv4Netmask         ConfigAttributeType = 2
	ConfigIPv4DNS             ConfigAttributeType = 3
	ConfigIPv4NBNS            ConfigAttributeType = 4
	ConfigIPv4DHCP            ConfigAttributeType = 6
	ConfigApplicationVersion  ConfigAttributeType = 7
	ConfigIPv6Address         ConfigAttributeType = 8
	ConfigIPv6DNS             ConfigAttributeType = 10
	ConfigIPv6DHCP            ConfigAttributeType = 12
	ConfigIPv4Subnet          ConfigAttributeType = 13
	ConfigSupportedAttributes ConfigAttributeType = 14
	ConfigIPv6Subnet          ConfigAttributeType = 15
	ConfigMIP6HomePrefix      ConfigAttributeType = 16
	ConfigIPv6Link            ConfigAttributeType = 17
	ConfigIPv6Prefix          ConfigAttributeType = 18
	ConfigHomeAgentAddress    ConfigAttributeType = 19
	ConfigPCSCFIPv4           ConfigAttributeType = 20
	ConfigPCSCFIPv6           ConfigAttributeType = 21
	ConfigFTTKAT              ConfigAttributeType = 22
	ConfigExternalIPv4NAT     ConfigAttributeType = 23
	ConfigLivenessTimeout     ConfigAttributeType = 24
	ConfigDNSDomain           ConfigAttributeType = 25
	ConfigDNSSECTA            ConfigAttributeType = 26
	ConfigEncDNSIPv4          ConfigAttributeType = 27
	ConfigEncDNSIPv6          ConfigAttributeType = 28
	ConfigEncDNSDigestInfo    ConfigAttributeType = 29
	ConfigMicrosoftIPv4Server ConfigAttributeType = 23456
	ConfigMicrosoftIPv6Server ConfigAttributeType = 23457
)

var configAttributeNames = [...]string{
	"", "INTERNAL_IP4_ADDRESS", "INTERNAL_IP4_NETMASK", "INTERNAL_IP4_DNS", "INTERNAL_IP4_NBNS", "", "INTERNAL_IP4_DHCP",
	"APPLICATION_VERSION", "INTERNAL_IP6_ADDRESS", "", "INTERNAL_IP6_DNS", "", "INTERNAL_IP6_DHCP", "INTERNAL_IP4_SUBNET",
	"SUPPORTED_ATTRIBUTES", "INTERNAL_IP6_SUBNET", "MIP6_HOME_PREFIX", "INTERNAL_IP6_LINK", "INTERNAL_IP6_PREFIX",
	"HOME_AGENT_ADDRESS", "P_CSCF_IP4_ADDRESS", "P_CSCF_IP6_ADDRESS", "FTT_KAT", "EXTERNAL_SOURCE_IP4_NAT_INFO",
	"TIMEOUT_PERIOD_FOR_LIVENESS_CHECK", "INTERNAL_DNS_DOMAIN", "INTERNAL_DNSSEC_TA", "ENCDNS_IP4", "ENCDNS_IP6",
	"ENCDNS_DIGEST_INFO",
}

func (t ConfigAttributeType) String() string {
	switch t {
	case ConfigMicrosoftIPv4Server:
		return "INTERNAL_IP4_SERVER"
	case ConfigMicrosoftIPv6Server:
		return "INTERNAL_IP6_SERVER"
	}
	if s := nameFrom(configAttributeNames[:], int(t), 0); s != "" {
		return s
	}
	return fmt.Sprintf("configuration attribute %d", uint16(t))
}

// A RedirectType says what names a gateway in a REDIRECT (RFC 5685 §7.2).
type RedirectType uint8

// Gateway identity types (RFC 5685 §10).
const (
	RedirectIPv4 RedirectType = 1
	RedirectIPv6 RedirectType = 2
	RedirectFQDN RedirectType = 3
)

func (t RedirectType) String() string {
	switch t {
	case RedirectIPv4:
		return "IPv4"
	case RedirectIPv6:
		return "IPv6"
	case RedirectFQDN:
		return "FQDN"
	}
	return fmt.Sprintf("gateway identity %d", uint8(t))
}
