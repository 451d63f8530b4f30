// Package spool keeps records on disk until somebody takes them. It is made for
// RADIUS accounting: a record that a gateway was told is taken must reach a
// server, even if every server is down now and the balancer is killed meanwhile.
// It knows nothing of RADIUS itself.
//
// # What it promises
//
//   - [Spool.Append] calls back without an error only once the record is synced
//     to disk. Many records share one sync.
//   - What was so acknowledged is delivered, across crashes and restarts. When
//     the spool is full, by MaxBytes or because the oldest record waits longer
//     than MaxAge, it acknowledges no more; it never drops what it has.
//   - Records are delivered in the order they came in. Up to Window of them are
//     under way at once, but never two of one Key: those wait for one another.
//   - Before a record is handed out, that fact is synced too. So after a crash
//     it is known which records may have been delivered already: they are handed
//     out again with [Delivery.Attempt] above 0, and with the time they were last
//     handed out. Who delivers them must mark them as repeated. Nothing is
//     delivered twice without that.
//   - A record whose ID is known from the last Remember is acknowledged and not
//     kept twice. Gateways repeat what wasn't acknowledged, also across a crash.
//   - A record that is refused again and again while later ones are taken is set
//     aside in the file "refused", so that it can't hold up the rest.
//
// # On disk
//
// A folder of mode 0700 holds files of mode 0600: accounting records name people,
// their addresses and the hours they work. It should be on a file system that
// honours fsync, and be nobody's but the balancer's.
//
//	0000000000000001.seg   records, appended; numbered by the first
//	progress               what was handed out, and what was taken
//	refused                records that no server takes, in the form of a segment
//	*.bad                  copies of files that were damaged
//	lock                   keeps a second process out
//
// Each record and each entry of progress has a checksum. The torn end that a crash
// leaves is cut off. Damage elsewhere costs the damaged records alone: the file is
// copied to *.bad, reported, and what can be read goes on being used.
package spool
