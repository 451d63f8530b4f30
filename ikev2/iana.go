package ikev2

import "fmt"

// Numbers of the IANA registry "Internet Key Exchange Version 2 (IKEv2)
// Parameters". Numbers without a name here show as such.

// An ExchangeType says what a message is for.
type ExchangeType uint8

// Exchange types (RFC 7296, 5723, 9242, 9370).
const (
	ExchangeSAInit        ExchangeType = 34
	ExchangeAuth          ExchangeType = 35
	ExchangeCreateChildSA ExchangeType = 36
	ExchangeInformational ExchangeType = 37
	ExchangeSessionResume ExchangeType = 38
	ExchangeIntermediate  ExchangeType = 43
	ExchangeFollowupKE    ExchangeType = 44
)

func (t ExchangeType) String() string {
	switch t {
	case ExchangeSAInit:
		return "IKE_SA_INIT"
	case ExchangeAuth:
		return "IKE_AUTH"
	case ExchangeCreateChildSA:
		return "CREATE_CHILD_SA"
	case ExchangeInformational:
		return "INFORMATIONAL"
	case ExchangeSessionResume:
		return "IKE_SESSION_RESUME"
	case ExchangeIntermediate:
		return "IKE_INTERMEDIATE"
	case ExchangeFollowupKE:
		return "IKE_FOLLOWUP_KE"
	}
	return fmt.Sprintf("exchange %d", uint8(t))
}

// known reports whether t is one that a Microsoft or strongSwan peer sends.
func (t ExchangeType) known() bool {
	return t >= ExchangeSAInit && t <= ExchangeSessionResume || t == ExchangeIntermediate || t == ExchangeFollowupKE
}

// A PayloadType says what a payload holds.
type PayloadType uint8

// Payload types (RFC 7296 §3.2, RFC 7383, RFC 6467).
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
	PayloadSKF     PayloadType = 53
	PayloadPS      PayloadType = 54
)

var payloadNames = [...]string{
	"SA", "KE", "IDi", "IDr", "CERT", "CERTREQ", "AUTH", "Nonce", "N", "D", "V", "TSi", "TSr", "SK", "CP", "EAP",
}

func (t PayloadType) String() string {
	switch {
	case t == PayloadNone:
		return "none"
	case t >= PayloadSA && int(t-PayloadSA) < len(payloadNames):
		return payloadNames[t-PayloadSA]
	case t == PayloadSKF:
		return "SKF"
	case t == PayloadPS:
		return "PS"
	}
	return fmt.Sprintf("payload %d", uint8(t))
}

// A ProtocolID says whose SPI or proposal it is.
type ProtocolID uint8

// Protocol IDs (RFC 7296 §3.3.1).
const (
	ProtocolNone ProtocolID = 0
	ProtocolIKE  ProtocolID = 1
	ProtocolAH   ProtocolID = 2
	ProtocolESP  ProtocolID = 3
)

func (p ProtocolID) String() string {
	switch p {
	case ProtocolNone:
		return "none"
	case ProtocolIKE:
		return "IKE"
	case ProtocolAH:
		return "AH"
	case ProtocolESP:
		return "ESP"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// A NotifyType says what a Notify payload tells. Types below 16384 are errors.
type NotifyType uint16

// Notify types.
const (
	NotifyUnsupportedCritical  NotifyType = 1
	NotifyInvalidIKESPI        NotifyType = 4
	NotifyInvalidMajorVersion  NotifyType = 5
	NotifyInvalidSyntax        NotifyType = 7
	NotifyInvalidMessageID     NotifyType = 9
	NotifyInvalidSPI           NotifyType = 11
	NotifyNoProposalChosen     NotifyType = 14
	NotifyInvalidKEPayload     NotifyType = 17
	NotifyAuthenticationFailed NotifyType = 24
	NotifySinglePairRequired   NotifyType = 34
	NotifyNoAdditionalSAs      NotifyType = 35
	NotifyInternalAddress      NotifyType = 36
	NotifyFailedCPRequired     NotifyType = 37
	NotifyTSUnacceptable       NotifyType = 38
	NotifyInvalidSelectors     NotifyType = 39
	NotifyTemporaryFailure     NotifyType = 43
	NotifyChildSANotFound      NotifyType = 44

	NotifyInitialContact         NotifyType = 16384
	NotifyNATDetectionSource     NotifyType = 16388
	NotifyNATDetectionDest       NotifyType = 16389
	NotifyCookie                 NotifyType = 16390
	NotifyRekeySA                NotifyType = 16393
	NotifyMOBIKESupported        NotifyType = 16396
	NotifyAdditionalIPv4         NotifyType = 16397
	NotifyAdditionalIPv6         NotifyType = 16398
	NotifyNoAdditionalAddresses  NotifyType = 16399
	NotifyUpdateSAAddresses      NotifyType = 16400
	NotifyCookie2                NotifyType = 16401
	NotifyMultipleAuthSupported  NotifyType = 16404
	NotifyRedirectSupported      NotifyType = 16406
	NotifyRedirect               NotifyType = 16407
	NotifyRedirectedFrom         NotifyType = 16408
	NotifyEAPOnly                NotifyType = 16417
	NotifyChildlessSupported     NotifyType = 16418
	NotifyFragmentationSupported NotifyType = 16430
	NotifySignatureHashes        NotifyType = 16431
	NotifyIntermediateSupported  NotifyType = 16438
)

// A switch compiles to a search without memory or initialisation, so there is no
// map of names.
func (t NotifyType) String() string {
	if t < NotifyInitialContact {
		return t.errorName()
	}
	switch t {
	case NotifyInitialContact:
		return "INITIAL_CONTACT"
	case NotifyNATDetectionSource:
		return "NAT_DETECTION_SOURCE_IP"
	case NotifyNATDetectionDest:
		return "NAT_DETECTION_DESTINATION_IP"
	case NotifyCookie:
		return "COOKIE"
	case NotifyRekeySA:
		return "REKEY_SA"
	case NotifyMOBIKESupported:
		return "MOBIKE_SUPPORTED"
	case NotifyAdditionalIPv4:
		return "ADDITIONAL_IP4_ADDRESS"
	case NotifyAdditionalIPv6:
		return "ADDITIONAL_IP6_ADDRESS"
	case NotifyNoAdditionalAddresses:
		return "NO_ADDITIONAL_ADDRESSES"
	case NotifyUpdateSAAddresses:
		return "UPDATE_SA_ADDRESSES"
	case NotifyCookie2:
		return "COOKIE2"
	case NotifyMultipleAuthSupported:
		return "MULTIPLE_AUTH_SUPPORTED"
	case NotifyRedirectSupported:
		return "REDIRECT_SUPPORTED"
	case NotifyRedirect:
		return "REDIRECT"
	case NotifyRedirectedFrom:
		return "REDIRECTED_FROM"
	case NotifyEAPOnly:
		return "EAP_ONLY_AUTHENTICATION"
	case NotifyChildlessSupported:
		return "CHILDLESS_IKEV2_SUPPORTED"
	case NotifyFragmentationSupported:
		return "IKEV2_FRAGMENTATION_SUPPORTED"
	case NotifySignatureHashes:
		return "SIGNATURE_HASH_ALGORITHMS"
	case NotifyIntermediateSupported:
		return "INTERMEDIATE_EXCHANGE_SUPPORTED"
	}
	return fmt.Sprintf("notify %d", uint16(t))
}

func (t NotifyType) errorName() string {
	switch t {
	case NotifyUnsupportedCritical:
		return "UNSUPPORTED_CRITICAL_PAYLOAD"
	case NotifyInvalidIKESPI:
		return "INVALID_IKE_SPI"
	case NotifyInvalidMajorVersion:
		return "INVALID_MAJOR_VERSION"
	case NotifyInvalidSyntax:
		return "INVALID_SYNTAX"
	case NotifyInvalidMessageID:
		return "INVALID_MESSAGE_ID"
	case NotifyInvalidSPI:
		return "INVALID_SPI"
	case NotifyNoProposalChosen:
		return "NO_PROPOSAL_CHOSEN"
	case NotifyInvalidKEPayload:
		return "INVALID_KE_PAYLOAD"
	case NotifyAuthenticationFailed:
		return "AUTHENTICATION_FAILED"
	case NotifySinglePairRequired:
		return "SINGLE_PAIR_REQUIRED"
	case NotifyNoAdditionalSAs:
		return "NO_ADDITIONAL_SAS"
	case NotifyInternalAddress:
		return "INTERNAL_ADDRESS_FAILURE"
	case NotifyFailedCPRequired:
		return "FAILED_CP_REQUIRED"
	case NotifyTSUnacceptable:
		return "TS_UNACCEPTABLE"
	case NotifyInvalidSelectors:
		return "INVALID_SELECTORS"
	case NotifyTemporaryFailure:
		return "TEMPORARY_FAILURE"
	case NotifyChildSANotFound:
		return "CHILD_SA_NOT_FOUND"
	}
	return fmt.Sprintf("notify %d", uint16(t))
}
