package ikev2

import "fmt"

// A NotifyType says what a Notify payload tells. Types below 16384 are errors.
type NotifyType uint16

// Notify types that are errors (RFC 7296 §3.10.1, 4555, 5026, 9838, 9611).
const (
	NotifyUnsupportedCritical   NotifyType = 1
	NotifyInvalidIKESPI         NotifyType = 4
	NotifyInvalidMajorVersion   NotifyType = 5
	NotifyInvalidSyntax         NotifyType = 7
	NotifyInvalidMessageID      NotifyType = 9
	NotifyInvalidSPI            NotifyType = 11
	NotifyNoProposalChosen      NotifyType = 14
	NotifyInvalidKEPayload      NotifyType = 17
	NotifyAuthenticationFailed  NotifyType = 24
	NotifySinglePairRequired    NotifyType = 34
	NotifyNoAdditionalSAs       NotifyType = 35
	NotifyInternalAddress       NotifyType = 36
	NotifyFailedCPRequired      NotifyType = 37
	NotifyTSUnacceptable        NotifyType = 38
	NotifyInvalidSelectors      NotifyType = 39
	NotifyUnacceptableAddresses NotifyType = 40
	NotifyUnexpectedNAT         NotifyType = 41
	NotifyUseAssignedHoA        NotifyType = 42
	NotifyTemporaryFailure      NotifyType = 43
	NotifyChildSANotFound       NotifyType = 44
	NotifyInvalidGroupID        NotifyType = 45
	NotifyAuthorizationFailed   NotifyType = 46
	NotifyStateNotFound         NotifyType = 47
	NotifyTSMaxQueue            NotifyType = 48
	NotifyRegistrationFailed    NotifyType = 49
)

// Notify types that tell a status (RFC 7296 §3.10.1, and those of the
// extensions: 4555 MOBIKE, 4739, 5685 REDIRECT, 5723 resumption, 5998, 6023,
// 6311, 7383 fragments, 7427 signatures, 8784 PPK, 9242, 9370 and others).
const (
	NotifyInitialContact         NotifyType = 16384
	NotifySetWindowSize          NotifyType = 16385
	NotifyAdditionalTSPossible   NotifyType = 16386
	NotifyIPCompSupported        NotifyType = 16387
	NotifyNATDetectionSource     NotifyType = 16388
	NotifyNATDetectionDest       NotifyType = 16389
	NotifyCookie                 NotifyType = 16390
	NotifyUseTransportMode       NotifyType = 16391
	NotifyHTTPCertLookup         NotifyType = 16392
	NotifyRekeySA                NotifyType = 16393
	NotifyNoTFCPadding           NotifyType = 16394
	NotifyNonFirstFragments      NotifyType = 16395
	NotifyMOBIKESupported        NotifyType = 16396
	NotifyAdditionalIPv4         NotifyType = 16397
	NotifyAdditionalIPv6         NotifyType = 16398
	NotifyNoAdditionalAddresses  NotifyType = 16399
	NotifyUpdateSAAddresses      NotifyType = 16400
	NotifyCookie2                NotifyType = 16401
	NotifyNoNATsAllowed          NotifyType = 16402
	NotifyAuthLifetime           NotifyType = 16403
	NotifyMultipleAuthSupported  NotifyType = 16404
	NotifyAnotherAuthFollows     NotifyType = 16405
	NotifyRedirectSupported      NotifyType = 16406
	NotifyRedirect               NotifyType = 16407
	NotifyRedirectedFrom         NotifyType = 16408
	NotifyTicketLTOpaque         NotifyType = 16409
	NotifyTicketRequest          NotifyType = 16410
	NotifyTicketACK              NotifyType = 16411
	NotifyTicketNACK             NotifyType = 16412
	NotifyTicketOpaque           NotifyType = 16413
	NotifyLinkID                 NotifyType = 16414
	NotifyUseWESP                NotifyType = 16415
	NotifyROHCSupported          NotifyType = 16416
	NotifyEAPOnly                NotifyType = 16417
	NotifyChildlessSupported     NotifyType = 16418
	NotifyQuickCrashDetection    NotifyType = 16419
	NotifyMessageIDSyncSupported NotifyType = 16420
	NotifyReplaySyncSupported    NotifyType = 16421
	NotifyMessageIDSync          NotifyType = 16422
	NotifyReplaySync             NotifyType = 16423
	NotifySecurePasswordMethods  NotifyType = 16424
	NotifyPSKPersist             NotifyType = 16425
	NotifyPSKConfirm             NotifyType = 16426
	NotifyERXSupported           NotifyType = 16427
	NotifyIFOMCapability         NotifyType = 16428
	NotifyGroupSender            NotifyType = 16429
	NotifyFragmentationSupported NotifyType = 16430
	NotifySignatureHashes        NotifyType = 16431
	NotifyCloneSupported         NotifyType = 16432
	NotifyClone                  NotifyType = 16433
	NotifyPuzzle                 NotifyType = 16434
	NotifyUsePPK                 NotifyType = 16435
	NotifyPPKIdentity            NotifyType = 16436
	NotifyNoPPKAuth              NotifyType = 16437
	NotifyIntermediateSupported  NotifyType = 16438
	NotifyIPv4Allowed            NotifyType = 16439
	NotifyIPv6Allowed            NotifyType = 16440
	NotifyAdditionalKeyExchange  NotifyType = 16441
	NotifyUseAggFrag             NotifyType = 16442
	NotifySupportedAuthMethods   NotifyType = 16443
	NotifySAResourceInfo         NotifyType = 16444
	NotifyUsePPKInt              NotifyType = 16445
	NotifyPPKIdentityKey         NotifyType = 16446
	NotifyFullTranscriptAuth     NotifyType = 16447
)

var notifyErrors = [...]string{
	NotifyUnsupportedCritical:   "UNSUPPORTED_CRITICAL_PAYLOAD",
	NotifyInvalidIKESPI:         "INVALID_IKE_SPI",
	NotifyInvalidMajorVersion:   "INVALID_MAJOR_VERSION",
	NotifyInvalidSyntax:         "INVALID_SYNTAX",
	NotifyInvalidMessageID:      "INVALID_MESSAGE_ID",
	NotifyInvalidSPI:            "INVALID_SPI",
	NotifyNoProposalChosen:      "NO_PROPOSAL_CHOSEN",
	NotifyInvalidKEPayload:      "INVALID_KE_PAYLOAD",
	NotifyAuthenticationFailed:  "AUTHENTICATION_FAILED",
	NotifySinglePairRequired:    "SINGLE_PAIR_REQUIRED",
	NotifyNoAdditionalSAs:       "NO_ADDITIONAL_SAS",
	NotifyInternalAddress:       "INTERNAL_ADDRESS_FAILURE",
	NotifyFailedCPRequired:      "FAILED_CP_REQUIRED",
	NotifyTSUnacceptable:        "TS_UNACCEPTABLE",
	NotifyInvalidSelectors:      "INVALID_SELECTORS",
	NotifyUnacceptableAddresses: "UNACCEPTABLE_ADDRESSES",
	NotifyUnexpectedNAT:         "UNEXPECTED_NAT_DETECTED",
	NotifyUseAssignedHoA:        "USE_ASSIGNED_HoA",
	NotifyTemporaryFailure:      "TEMPORARY_FAILURE",
	NotifyChildSANotFound:       "CHILD_SA_NOT_FOUND",
	NotifyInvalidGroupID:        "INVALID_GROUP_ID",
	NotifyAuthorizationFailed:   "AUTHORIZATION_FAILED",
	NotifyStateNotFound:         "STATE_NOT_FOUND",
	NotifyTSMaxQueue:            "TS_MAX_QUEUE",
	NotifyRegistrationFailed:    "REGISTRATION_FAILED",
}

// From NotifyInitialContact on, without a gap.
var notifyStatus = [...]string{
	"INITIAL_CONTACT", "SET_WINDOW_SIZE", "ADDITIONAL_TS_POSSIBLE", "IPCOMP_SUPPORTED", "NAT_DETECTION_SOURCE_IP",
	"NAT_DETECTION_DESTINATION_IP", "COOKIE", "USE_TRANSPORT_MODE", "HTTP_CERT_LOOKUP_SUPPORTED", "REKEY_SA",
	"ESP_TFC_PADDING_NOT_SUPPORTED", "NON_FIRST_FRAGMENTS_ALSO", "MOBIKE_SUPPORTED", "ADDITIONAL_IP4_ADDRESS",
	"ADDITIONAL_IP6_ADDRESS", "NO_ADDITIONAL_ADDRESSES", "UPDATE_SA_ADDRESSES", "COOKIE2", "NO_NATS_ALLOWED",
	"AUTH_LIFETIME", "MULTIPLE_AUTH_SUPPORTED", "ANOTHER_AUTH_FOLLOWS", "REDIRECT_SUPPORTED", "REDIRECT",
	"REDIRECTED_FROM", "TICKET_LT_OPAQUE", "TICKET_REQUEST", "TICKET_ACK", "TICKET_NACK", "TICKET_OPAQUE", "LINK_ID",
	"USE_WESP_MODE", "ROHC_SUPPORTED", "EAP_ONLY_AUTHENTICATION", "CHILDLESS_IKEV2_SUPPORTED", "QUICK_CRASH_DETECTION",
	"IKEV2_MESSAGE_ID_SYNC_SUPPORTED", "IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED", "IKEV2_MESSAGE_ID_SYNC",
	"IPSEC_REPLAY_COUNTER_SYNC", "SECURE_PASSWORD_METHODS", "PSK_PERSIST", "PSK_CONFIRM", "ERX_SUPPORTED",
	"IFOM_CAPABILITY", "GROUP_SENDER", "IKEV2_FRAGMENTATION_SUPPORTED", "SIGNATURE_HASH_ALGORITHMS",
	"CLONE_IKE_SA_SUPPORTED", "CLONE_IKE_SA", "PUZZLE", "USE_PPK", "PPK_IDENTITY", "NO_PPK_AUTH",
	"INTERMEDIATE_EXCHANGE_SUPPORTED", "IP4_ALLOWED", "IP6_ALLOWED", "ADDITIONAL_KEY_EXCHANGE", "USE_AGGFRAG",
	"SUPPORTED_AUTH_METHODS", "SA_RESOURCE_INFO", "USE_PPK_INT", "PPK_IDENTITY_KEY", "IKE_SA_INIT_FULL_TRANSCRIPT_AUTH",
}

func (t NotifyType) String() string {
	s := nameFrom(notifyErrors[:], int(t), 0)
	if t >= NotifyInitialContact {
		s = nameFrom(notifyStatus[:], int(t), int(NotifyInitialContact))
	}
	if s != "" {
		return s
	}
	return fmt.Sprintf("notify %d", uint16(t))
}

// IsError reports whether t says that something failed, rather than a status.
func (t NotifyType) IsError() bool { return t < NotifyInitialContact }
