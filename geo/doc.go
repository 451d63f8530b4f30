// Package geo decides which site a client of a service with several sites
// should use, and says why. It is the policy of a DNS server that balances
// globally (GSLB), but it knows nothing of DNS and opens no socket: it is told
// facts, and answers questions.
//
// # How a decision is made
//
// A [Policy] turns what is known of a client's address, a [Place], into a
// ranking: tiers of sites, best first. Rankings depend on no site's health, so
// they are computed once, for the whole Internet, when a Policy is compiled
// into a [Plan]: every address block in which all clients have one ranking
// becomes one entry of a map of prefixes that don't overlap. That is what makes
// the scope of an answer to a client-subnet query (RFC 7871) true: all of the
// block gets the same.
//
// [Health] knows how the sites are: what the checks of their gateways say, what
// administrators want, how long a failed site is to stay away. It publishes an
// immutable [View]. A [Selector] joins a Plan with a View: for each ranking, it
// holds the first tier that has a usable site; [Selector.Pick] then chooses in
// it for one client, without allocating and without a lock.
//
// # What is guaranteed
//
//   - A site that isn't known yet isn't down: it is used before those that are
//     known to be down, and after those that are up.
//   - What an administrator says (drain, force) beats every fallback.
//   - When no site is left, the answer is that of a Plan with all sites up, or
//     what the Policy says instead; it is never "there is no such name".
//   - The choice depends on the client, the state and the time slot only, so
//     that several servers with the same state answer alike.
//   - The address families are never asked about: both get the same site.
package geo
