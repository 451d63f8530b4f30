package f5

import "strings"

// keys are the properties of the classes that are known, as the schema of AS3 3.56.0 names
// them. AS3 ignores what it doesn't know in some classes; here it is refused.
var keys = map[string]string{
	"Persist": `addressMask alwaysSet bufferLimit class cookieMethod cookieName count duration encrypt endPattern hashAlgorithm hashCount header
httpOnly iRule label matchAcrossPools matchAcrossVirtualAddresses matchAcrossVirtualPorts mirror overrideConnectionLimit
passphrase persistenceMethod remark secure sessionBroker startAt startPattern ttl`,
	"Pool": `allowNATEnabled allowSNATEnabled class label loadBalancingMode members metadata minimumMembersActive minimumMonitors monitors
remark reselectTries serviceDownAction slowRampTime`,
	"Service_TCP": `addressStatus adminState allowVlans class clientTLS clonePools enable fallbackPersistenceMethod httpMrfRoutingEnabled iRules
ipIntelligencePolicy label lastHop layer4 maxConnections maximumBandwidth metadata mirroring mqttEnabled nat64Enabled
persistenceMethods policyBandwidthControl policyEndpoint policyFirewallEnforced policyFirewallStaged policyIdleTimeout policyNAT
pool profileAnalyticsTcp profileClassification profileConnector profileDNS profileDiameterEndpoint profileEnforcement profileFIX
profileFTP profileICAP profileILX profileIPOther profileIntegratedBotDefense profilePPTP profileProtocolInspection profileRTSP
profileRewrite profileSIP profileSOCKS profileSSHProxy profileService profileSplitsessionClient profileStatistics profileStream
profileSubscriberManagement profileTCP profileTrafficLog rateLimit rejectVlans remark securityLogProfiles serverTLS
serversslUseSni serviceDownImmediateAction shareAddresses snat sourceAddress translateClientPort translateServerAddress
translateServerPort virtualAddresses virtualPort virtualType`,
	"Service_UDP": `addressStatus adminState allowVlans class clientTLS clonePools enable fallbackPersistenceMethod httpMrfRoutingEnabled iRules
ipIntelligencePolicy label lastHop layer4 maxConnections maximumBandwidth metadata mirroring nat64Enabled persistenceMethods
policyBandwidthControl policyEndpoint policyFirewallEnforced policyFirewallStaged policyIdleTimeout policyNAT pool
profileClassification profileDNS profileDiameterEndpoint profileEnforcement profileIPOther profileIntegratedBotDefense
profileProtocolInspection profileRADIUS profileRewrite profileSIP profileStatistics profileSubscriberManagement profileTFTP
profileTrafficLog profileUDP rateLimit rejectVlans remark securityLogProfiles serverTLS serversslUseSni serviceDownImmediateAction
shareAddresses snat sourceAddress translateClientPort translateServerAddress translateServerPort virtualAddresses virtualPort
virtualType`,
	"UDP_Profile": `allowNoPayload bufferMaxBytes bufferMaxPackets class datagramLoadBalancing idleTimeout ipDfMode ipTosToClient label
linkQosToClient proxyMSS remark ttlIPv4 ttlIPv6 ttlMode useChecksum`,
	"TCP_Profile": `abc ackOnPush autoProxyBufferSize autoReceiveWindowSize autoSendBufferSize class closeWaitTimeout congestionControl
congestionMetricsCache congestionMetricsCacheTimeout deferredAccept delayWindowControl delayedAcks dsack earlyRetransmit ecn
enhancedLossRecovery fastOpen fastOpenCookieExpiration finWait2Timeout finWaitTimeout idleTimeout initCwnd initRwnd ipDfMode
ipTosToClient keepAliveInterval label limitedTransmit linkQosToClient maxRetrans maxSegmentSize md5Signature
md5SignaturePassphrase minimumRto mptcp mptcpCsum mptcpCsumVerify mptcpFallback mptcpFastJoin mptcpIdleTimeout mptcpJoinMax
mptcpMakeAfterBreak mptcpNoJoinDssAck mptcpRetransmitMin mptcpRtoMax mptcpSubflowMax mptcpTimeout nagle pktLossIgnoreBurst
pktLossIgnoreRate proxyBufferHigh proxyBufferLow proxyMSS proxyOptions pushFlag ratePace ratePaceMaxRate receiveWindowSize remark
resetOnTimeout retransmitThreshold selectiveAcks selectiveNack sendBufferSize slowStart synCookieAllowlist synCookieEnable
synCookieWhitelist synMaxRetrans synRtoBase tailLossProbe tcpOptions timeWaitRecycle timeWaitTimeout timestamps ttlIPv4 ttlIPv6
ttlMode verifiedAccept zeroWindowTimeout`,
	"Radius_Profile": `class label parentProfile persistAttribute protocolProfile remark subscriberDiscoveryEnabled`,
	"TLS_Server": `alertTimeout allowDynamicRecordSizing allowExpiredCRL authenticationDepth authenticationFrequency authenticationInviteCA
authenticationMode authenticationTrustCA c3dEnabled c3dOCSP c3dOCSPUnknownStatusAction cacheCertificateEnabled cacheTimeout
certificateExtensions certificates cipherGroup ciphers class crlFile dataZeroRoundTripTime dtls1_2Enabled dtlsEnabled
forwardProxyBypassAllowlist forwardProxyBypassEnabled forwardProxyEnabled handshakeTimeout hybrid insertEmptyFragmentsEnabled
label ldapStartTLS namingScheme nonSslConnectionsEnabled notifyCertStatusToVirtualServer proxySslEnabled
proxySslPassthroughEnabled remark renegotiateMaxRecordDelay renegotiatePeriod renegotiateSize renegotiationEnabled requireSNI
retainCertificateEnabled secureRenegotiation singleUseDhEnabled smtpsStartTLS ssl3Enabled sslEnabled sslSignHash
staplerOCSPEnabled tls1_0Enabled tls1_1Enabled tls1_2Enabled tls1_3Enabled uncleanShutdownEnabled`,
	"TLS_Client": `alertTimeout allowExpiredCRL authenticationDepth authenticationFrequency c3dCertificateAuthority c3dCertificateExtensions
c3dCertificateLifespan c3dEnabled cacheTimeout cipherGroup ciphers class clientCertificate crlFile dataZeroRoundTripTime
dtls1_2Enabled dtlsEnabled forwardProxyBypassEnabled forwardProxyEnabled handshakeTimeout ignoreExpired ignoreUntrusted
insertEmptyFragmentsEnabled label ldapStartTLS proxySslEnabled proxySslPassthroughEnabled remark renegotiatePeriod renegotiateSize
renegotiationEnabled requireSNI retainCertificateEnabled secureRenegotiation sendSNI serverName sessionTickets singleUseDhEnabled
sniDefault ssl3Enabled sslEnabled sslSignHash tls1_0Enabled tls1_1Enabled tls1_2Enabled tls1_3Enabled trustCA
uncleanShutdownEnabled validateCertificate`,
	"GSLB_Data_Center": `class contact enabled label location proberFallback proberPool proberPreferred remark`,
	"GSLB_Server": `bpsLimit bpsLimitEnabled class connectionsLimit connectionsLimitEnabled cpuUsageLimit cpuUsageLimitEnabled dataCenter devices
enabled exposeRouteDomainsEnabled label memoryLimit memoryLimitEnabled minimumMonitors monitors pathProbeEnabled ppsLimit
ppsLimitEnabled proberFallback proberPool proberPreferred remark serverType serviceCheckProbeEnabled snmpProbeEnabled
virtualServerDiscoveryMode virtualServers`,
	"GSLB_Domain": `aliases class clientSubnetPreferred domainName enabled failureRcode failureRcodeResponse failureRcodeTtl iRules label
lastResortPool lastResortPoolType loadBalancingDecisionLogVerbosity persistCidrIpv4 persistCidrIpv6 persistenceEnabled poolLbMode
pools poolsCname remark resourceRecordType ttlPersistence`,
	"GSLB_Pool": `bpsLimit bpsLimitEnabled class connectionsLimit connectionsLimitEnabled dynamicRatioEnabled enabled fallbackIP label lbModeAlternate
lbModeFallback lbModePreferred manualResumeEnabled maxAnswersReturned members ppsLimit ppsLimitEnabled remark resourceRecordType ttl
verifyMemberEnabled`,
	"GSLB_Topology_Records":     `class label longestMatchEnabled records`,
	"GSLB virtual server":       `address addressTranslation addressTranslationPort enabled label minimumMonitors monitors name port remark`,
	"GSLB member A":             `dependsOn enabled label memberOrder ratio remark server virtualServer`,
	"GSLB member AAAA":          `dependsOn enabled label ratio remark server virtualServer`,
	"GSLB_Monitor http":         `class ignoreDownResponseEnabled interval label monitorType probeTimeout receive receiveStatusCodes remark reverseEnabled send target timeout transparent`,
	"GSLB_Monitor https":        `ciphers class clientCertificate ignoreDownResponseEnabled interval label monitorType probeTimeout receive receiveStatusCodes remark reverseEnabled send sniServerName target timeout transparent`,
	"GSLB_Monitor tcp":          `class ignoreDownResponseEnabled interval label monitorType probeTimeout receive remark reverseEnabled send target timeout transparent`,
	"GSLB_Monitor gateway-icmp": `class ignoreDownResponseEnabled interval label monitorType probeAttempts probeInterval probeTimeout remark target timeout transparent`,
	"Certificate":               `certificate chainCA class issuerCertificate label passphrase pkcs12 pkcs12Options privateKey remark staplerOCSP`,
	"CA_Bundle":                 `bundle class label remark`,
	"iRule":                     `class expand iRule label remark`,
	"member": `accessKeyId addressDiscovery addressFamily adminState apiAccessKey applicationId autoPopulate bigip class connectionLimit
directoryId downInterval dynamicRatio enable encodedCredentials encodedToken environment externalId fqdnPrefix hostname
jmesPathQuery label metadata minimumMonitors monitors priorityGroup projectId queryInterval rateLimit ratio region
rejectUnauthorized remark resourceGroup resourceId resourceType roleARN routeDomain secretAccessKey serverAddresses servers
servicePort shareNodes subscriptionId trustCA updateInterval uri useManagedIdentity`,
	"Monitor http": `adaptive adaptiveDivergenceMilliseconds adaptiveDivergencePercentage adaptiveDivergenceType adaptiveLimitMilliseconds
adaptiveWindow class dscp interval label monitorType passphrase receive receiveDown remark reverse send targetAddress targetPort
timeUntilUp timeout transparent upInterval username`,
	"Monitor https": `adaptive adaptiveDivergenceMilliseconds adaptiveDivergencePercentage adaptiveDivergenceType adaptiveLimitMilliseconds
adaptiveWindow ciphers class clientCertificate clientTLS dscp interval label monitorType passphrase receive receiveDown remark
reverse send targetAddress targetPort timeUntilUp timeout transparent upInterval username`,
	"Monitor tcp": `adaptive adaptiveDivergenceMilliseconds adaptiveDivergencePercentage adaptiveDivergenceType adaptiveLimitMilliseconds
adaptiveWindow class dscp interval label monitorType receive receiveDown remark reverse send targetAddress targetPort timeUntilUp
timeout transparent upInterval`,
	"Monitor icmp": `adaptive adaptiveDivergenceMilliseconds adaptiveDivergencePercentage adaptiveDivergenceType adaptiveLimitMilliseconds
adaptiveWindow class interval label monitorType remark targetAddress targetPort timeUntilUp timeout transparent upInterval`,
	"Monitor radius": `class interval label monitorType nasIpAddress passphrase remark secret targetAddress targetPort timeUntilUp timeout upInterval
username`,
}

// knows reports whether a class has a property.
func knows(class, property string) bool {
	for k := range strings.FieldsSeq(keys[class]) {
		if k == property {
			return true
		}
	}
	return false
}
