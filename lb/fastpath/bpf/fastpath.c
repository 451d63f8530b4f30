/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
 *
 * The kernel's part of package fastpath: it carries datagrams of flows that user
 * space has decided about, and leaves everything else as it is.
 *
 *	frame ──▶ is it UDP, whole, plain? ──▶ is its flow in a map? ──▶ is the SPI known?
 *	             │ no                         │ no                     │ no
 *	             ▼                            ▼                        ▼
 *	          the network stack, and by it the balancer's own sockets
 *
 *	      ──▶ is its entry of the backend's generation? ──▶ where to? ──▶ rewrite, redirect
 *	             │ no                                        │ nowhere
 *	             ▼                                           ▼
 *	          the network stack                           likewise
 *
 * Only first messages of IKE, of no flow in a map, are dropped if too many come.
 *
 * The core is the same for the two places where it can be hooked in: XDP, before
 * the kernel has made a packet of the frame, and TC, right after. Only TC can send
 * a copy, which ICMP errors need, so XDP leaves these to it.
 *
 * It never subtracts pointers: to read the lengths of packets as numbers, XDP
 * programs need CAP_PERFMON.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2
#define AF_INET6 10
#define NEXT (-1) /* TCX_NEXT: the next program, or the stack */
#define TC_ACT_SHOT 2
#define LOOPBACK 1

/* <linux/icmp.h> leads to headers of the C library. */
#define ICMP_DEST_UNREACH 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
#define ICMPV6_DEST_UNREACH 1
#define ICMPV6_PARAMPROB 4

struct icmp {
	__u8 type, code;
	__sum16 check;
	__be32 more;
};

#define SPIS 4		/* that are known for each direction of a flow */
#define PROBES 64	/* how far from its place a record may be */
#define BACKENDS 4096
#define DEVICES 4096	/* with numbers below that */
#define LISTENERS 65536
#define MIN_UDP 20	/* the shortest ESP in UDP */
#define SLACK 10000000000ULL /* ns by which first messages may come too early */

/* Why a packet of a flow in the map, or an ICMP error about one, was not carried,
 * or how it was. In the order of the Go constants. */
enum reason {
	LEASE,		/* user space hasn't been heard of */
	GENERATION,	/* its backend's entries don't count any more */
	FORM,		/* options, lengths that disagree, a keepalive */
	CONTROL,	/* no ESP, but IKE behind its marker */
	SPI,		/* ESP that user space hasn't seen */
	TTL,
	TOO_BIG,	/* for the way it would go */
	FORWARDING,	/* the kernel won't say where */
	NO_ROUTE,
	NO_NEIGHBOUR,
	DEVICE,		/* that way leads to a device it can't be sent by */
	ICMP,		/* an error that has been copied to where it belongs */
	FRAGMENT,	/* of any UDP datagram */
	FLOOD,		/* a first message too many, which was dropped */
	REASONS,
};

/* One direction of a flow: what it is known by, what is to become of it, and what has
 * been carried. It is all that a packet has to be looked up for, and fills a line of the
 * cache: with many flows, nothing takes as long as to get lines from memory. IPv6's
 * addresses don't fit, and are in another.
 *
 * Only user space puts records in and takes them out, by memory that it shares, while
 * programs read. Three rules make that right. What is below the status has been written
 * before the status says that somebody is there, and is read after it. Of that, later
 * only single words change: an SPI, or the status, when the generation does. And a
 * record that was taken out is used again only when no program that has found it can
 * still be running. */
struct record {
	__u64 status;	     /* see below */
	__be32 src, dst;     /* of IPv6: a digest of addresses and ports */
	__be16 sport, dport;
	__be16 to_sport, to_dport;
	__be32 to_src;	     /* of IPv6: the number of its pairs */
	__be32 to_dst;
	__be32 spi[SPIS];
	__u64 packets, bytes;
};

/* The status is 0 where a search ends: nobody is there. Or else, these fields. */
#define FAMILY(status) ((__u8)(status)) /* AF_INET, AF_INET6; anything else: nobody */
#define BACKEND(status) ((__u16)((status) >> 16)) /* of generations */
#define GENERATION_OF(status) ((__u32)((status) >> 32)) /* for which it holds */

/* The addresses of a record of IPv6. */
struct pairs {
	__be32 src[4], dst[4], to_src[4], to_dst[4];
};

struct state {
	__u64 lease;  /* until when, by the monotonic clock, records hold; 0: always */
	__u64 seed;   /* of the places of records */
	__u64 places; /* how many there are */
	__u64 apart;  /* first messages, by what a processor lets through, in ns; 0: all */
};

/* Where IKE is listened for; an address of IPv4 is mapped into one of IPv6. */
struct listener {
	__be32 addr[4];
	__be16 port;
	__u16 pad;
};

/* A device that packets can be sent by. */
struct device {
	__u32 by;    /* what sends its frames: itself, or what it is a VLAN of */
	__u16 vlan;  /* 0: none */
	__u8 tc, xdp; /* whether they may be sent by these */
	__u8 mac[6]; /* its own */
	__u8 seen;   /* XDP has counted the first messages that come in by it */
	__u8 pad;
};

/* The sizes of these maps are user space's to set. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct record);
} records SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct pairs);
} pairs6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, BACKENDS);
	__type(key, __u32);
	__type(value, __u64);
} generations SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, DEVICES);
	__type(key, __u32);
	__type(value, struct device);
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct state);
} states SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * REASONS);
	__type(key, __u32);
	__type(value, __u64);
} reasons SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, LISTENERS);
	__type(key, struct listener);
	__type(value, __u32); /* of no meaning */
} listeners SEC(".maps");

/* When a processor's next first message is due. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} turns SEC(".maps");

/* At both places the same packet is looked at, so each has counters of its own. */
enum hook { TC = 0, XDP = REASONS };

static __always_inline void count(enum hook hook, __u32 why)
{
	why += hook;
	__u64 *n = bpf_map_lookup_elem(&reasons, &why);

	if (n)
		*n += 1;
}

/* --- The core ---------------------------------------------------------- */

/* A flow is a record that has been found, as it was then. */
struct flow {
	struct record *r;
	__u64 status;
};

/* The place where a record is, or one of the next PROBES, comes of its key, by a function
 * that depends on a secret. Who guessed it could have no more than flows left to user
 * space, for lack of a place. */
static __always_inline __u64 mix(__u64 h, __u64 v)
{
	h = (h ^ v) * 0x9e3779b97f4a7c15ULL;
	return h ^ h >> 32;
}

static __always_inline struct state *the_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&states, &zero);
}

/* find looks for the record of a key; of IPv6, a digest is that. */
static __always_inline int find(struct flow *f, const struct state *s, __u64 h, __u8 family, __be32 src, __be32 dst, __be16 sport, __be16 dport)
{
	__u32 at = (h >> 32) * (__u32)s->places >> 32;
	__u64 status, none;
	struct record *r;

	f->r = 0;
#pragma clang loop unroll(disable)
	for (int i = 0; i < PROBES; i++, at++) {
		r = bpf_map_lookup_elem(&records, &at);
		if (!r)
			return 0;
		status = *(volatile __u64 *)&r->status;
		if (!status)
			return 0;
		if (FAMILY(status) != family)
			continue;
		/* What is below has to be read after the status. So its address is made to
		 * depend on that, which every processor respects. */
		none = status;
		asm volatile("%0 &= 0" : "+r"(none));
		r = (void *)r + none;
		if (r->src == src && r->dst == dst && r->sport == sport && r->dport == dport) {
			f->r = r;
			f->status = status;
			return 1;
		}
	}
	return 0;
}

/* holds reports whether a record is still what user space wants. */
static __always_inline int holds(enum hook hook, const struct state *s, __u64 status)
{
	__u32 backend = BACKEND(status);
	__u64 *generation = bpf_map_lookup_elem(&generations, &backend);

	if (s->lease && bpf_ktime_get_coarse_ns() > s->lease) {
		count(hook, LEASE);
		return 0;
	}
	if (!generation || (__u32)*generation != GENERATION_OF(status)) {
		count(hook, GENERATION);
		return 0;
	}
	return 1;
}

/* knows reports whether user space has seen ESP with that SPI. */
static __always_inline int knows(enum hook hook, const struct record *r, __be32 spi)
{
	if (spi == 0) {
		count(hook, CONTROL);
		return 0;
	}
	if (spi == r->spi[0] || spi == r->spi[1] || spi == r->spi[2] || spi == r->spi[3])
		return 1;
	count(hook, SPI);
	return 0;
}

/* wanted reports whether a packet of a flow is to be carried. behind is the length
 * that the IP header says is behind it. */
static __always_inline int wanted(enum hook hook, const struct state *s, const struct flow *f, const struct udphdr *udp, __u16 behind, __u8 ttl)
{
	__u16 size = bpf_ntohs(udp->len);

	if (!holds(hook, s, f->status))
		return 0;
	if (size < MIN_UDP || size != behind) {
		count(hook, FORM);
		return 0;
	}
	if (!knows(hook, f->r, *(const __be32 *)(udp + 1)))
		return 0;
	if (ttl <= 1) {
		count(hook, TTL);
		return 0;
	}
	return 1;
}

static __always_inline void used(struct record *r, __u64 packets, __u64 bytes)
{
	__sync_fetch_and_add(&r->packets, packets);
	__sync_fetch_and_add(&r->bytes, bytes);
}

/* outcome counts why there is no way; 0 if there is one. */
static __always_inline int outcome(enum hook hook, long rc)
{
	switch (rc) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		return 0;
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		count(hook, TOO_BIG);
		return 1;
	case BPF_FIB_LKUP_RET_FWD_DISABLED:
		count(hook, FORWARDING);
		return 1;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		count(hook, NO_NEIGHBOUR);
		return 1;
	}
	count(hook, NO_ROUTE);
	return 1;
}

/* The way of a packet is that of one which this machine itself sends, since that is
 * how user space would send it: so the lookup begins at the loopback device. */
static __always_inline int route4(enum hook hook, void *ctx, const struct iphdr *ip, const struct record *to, __u16 size, struct bpf_fib_lookup *way)
{
	__builtin_memset(way, 0, sizeof(*way));
	way->family = AF_INET;
	way->l4_protocol = IPPROTO_UDP;
	way->sport = to->to_sport;
	way->dport = to->to_dport;
	way->tot_len = size;
	way->ifindex = LOOPBACK;
	way->tos = ip->tos & 0xfc;
	way->ipv4_src = to->to_src;
	way->ipv4_dst = to->to_dst;
	return outcome(hook, bpf_fib_lookup(ctx, way, sizeof(*way), 0));
}

static __always_inline int route6(enum hook hook, void *ctx, const struct ipv6hdr *ip, const struct record *to, const struct pairs *pairs, __u16 size, struct bpf_fib_lookup *way)
{
	__builtin_memset(way, 0, sizeof(*way));
	way->family = AF_INET6;
	way->l4_protocol = IPPROTO_UDP;
	way->sport = to->to_sport;
	way->dport = to->to_dport;
	way->tot_len = size;
	way->ifindex = LOOPBACK;
	way->flowinfo = *(const __be32 *)ip & bpf_htonl(0x0fffffff);
	__builtin_memcpy(way->ipv6_src, pairs->to_src, sizeof(pairs->to_src));
	__builtin_memcpy(way->ipv6_dst, pairs->to_dst, sizeof(pairs->to_dst));
	return outcome(hook, bpf_fib_lookup(ctx, way, sizeof(*way), 0));
}

static __always_inline struct device *device_of(__u32 number)
{
	return bpf_map_lookup_elem(&devices, &number);
}

/* same compares addresses: the compiler's own comparison would be a function call. */
static __always_inline int same(const void *a, const void *b, __u32 words)
{
	const __u16 *x = a, *y = b;

	for (__u32 i = 0; i < words; i++)
		if (x[i] != y[i])
			return 0;
	return 1;
}

static __always_inline __u16 folded(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* What the rewriting adds to a checksum, by the addresses and by the ports. */
static __always_inline __u16 addresses4(const struct iphdr *ip, const struct record *to)
{
	return folded((__u64)(__u32)~ip->saddr + (__u32)~ip->daddr + to->to_src + to->to_dst);
}

static __always_inline __u16 addresses6(const struct ipv6hdr *ip, const struct pairs *to)
{
	const __be32 *was = (const __be32 *)&ip->saddr; /* and the other behind it */
	__u64 sum = 0;

	for (int i = 0; i < 8; i++)
		sum += (__u32)~was[i];
	for (int i = 0; i < 4; i++)
		sum += (__u64)to->to_src[i] + to->to_dst[i];
	return folded(sum);
}

static __always_inline __u16 ports(const struct udphdr *udp, const struct record *to)
{
	return folded((__u64)(__u16)~udp->source + (__u16)~udp->dest + to->to_sport + to->to_dport);
}

static __always_inline int lookup4(struct flow *f, const struct state *s, __be32 src, __be32 dst, __be16 sport, __be16 dport)
{
	__u64 h = mix(mix(s->seed, (__u64)src << 32 | dst), (__u32)sport << 16 | dport);

	return find(f, s, h, AF_INET, src, dst, sport, dport);
}

/* plain4 reports whether a packet may be of a flow. That it is one of the flow's
 * fragments isn't known unless it is the first, so it matters not whose: none is
 * carried. */
static __always_inline int plain4(enum hook hook, const struct iphdr *ip)
{
	if (ip->version != 4 || ip->protocol != IPPROTO_UDP)
		return 0;
	if (ip->frag_off & bpf_htons(0xbfff)) { /* all but "don't fragment" */
		count(hook, FRAGMENT);
		return 0;
	}
	return ip->ihl == 5;
}

/* lookup6 also finds the addresses of the record. */
static __always_inline struct pairs *lookup6(struct flow *f, const struct state *s, const __be32 *src, const __be32 *dst, __be16 sport, __be16 dport)
{
	__u64 h = mix(s->seed, (__u32)sport << 16 | dport);
	struct pairs *pairs;
	__u32 number;

	for (int i = 0; i < 4; i++)
		h = mix(h, (__u64)src[i] << 32 | dst[i]);
	if (!find(f, s, h, AF_INET6, h >> 32, h, sport, dport))
		return 0;
	number = f->r->to_src;
	pairs = bpf_map_lookup_elem(&pairs6, &number);
	if (!pairs || !same(pairs->src, src, 8) || !same(pairs->dst, dst, 8))
		return 0;
	return pairs;
}

static __always_inline int plain6(enum hook hook, const struct ipv6hdr *ip)
{
	if (ip->version != 6)
		return 0;
	if (ip->nexthdr == IPPROTO_FRAGMENT)
		count(hook, FRAGMENT);
	return ip->nexthdr == IPPROTO_UDP;
}

/* --- First messages ---------------------------------------------------- */

/* What is behind the UDP header of a first message: maybe the marker, then IKE's
 * header, which begins with the SPIs, of 8 octets each. The responder's is zero, as it
 * hasn't spoken yet. */
struct start {
	__be32 word[7];
};

/* is_first agrees with user space, which goes by the octets: there may be a marker at
 * port 500, and none elsewhere. There it could be ESP, if it didn't have the version and
 * the length of IKE too. */
static __always_inline int is_first(const struct start *b, const struct udphdr *udp)
{
	if (!(b->word[0] | b->word[3] | b->word[4]))
		return 1;
	if (b->word[2] | b->word[3])
		return 0;
	return udp->dest == bpf_htons(500) ||
	       ((b->word[4] & bpf_htonl(0xff0000)) == bpf_htonl(0x200000) &&
		b->word[6] == bpf_htonl(bpf_ntohs(udp->len) - sizeof(*udp)));
}

/* beyond reports whether a first message, of no flow in a map, is one too many. Each
 * processor counts for itself: it is its time that is to be left to what is carried. When
 * the lease is over nothing is, and none is. */
static __always_inline int beyond(enum hook hook, const struct state *s, const struct listener *to)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	__u32 zero = 0;
	__u64 *turn;

	if ((s->lease && now > s->lease) || !bpf_map_lookup_elem(&listeners, to))
		return 0;
	turn = bpf_map_lookup_elem(&turns, &zero);
	if (!turn)
		return 0;
	if (*turn > now) {
		count(hook, FLOOD);
		return 1;
	}
	if (*turn + SLACK < now)
		*turn = now - SLACK;
	*turn += s->apart;
	return 0;
}

static __always_inline int beyond4(enum hook hook, const struct state *s, const struct iphdr *ip, __be16 port)
{
	struct listener to = { .addr = { 0, 0, bpf_htonl(0xffff), ip->daddr }, .port = port };

	return beyond(hook, s, &to);
}

static __always_inline int beyond6(enum hook hook, const struct state *s, const struct ipv6hdr *ip, __be16 port)
{
	struct listener to = { .port = port };

	__builtin_memcpy(to.addr, &ip->daddr, sizeof(to.addr));
	return beyond(hook, s, &to);
}

static __always_inline void rewrite4(struct iphdr *ip, struct udphdr *udp, __u16 addresses, const struct record *to)
{
	/* The time to live is the high octet of its word. */
	__u64 sum = (__u64)(__u16)~ip->check + addresses + bpf_htons(0xfeff);

	ip->check = ~folded(sum);
	ip->ttl--;
	ip->saddr = to->to_src;
	ip->daddr = to->to_dst;
	udp->source = to->to_sport;
	udp->dest = to->to_dport;
}

static __always_inline void rewrite6(struct ipv6hdr *ip, struct udphdr *udp, const struct record *to, const struct pairs *pairs)
{
	ip->hop_limit--;
	__builtin_memcpy(&ip->saddr, pairs->to_src, sizeof(pairs->to_src));
	__builtin_memcpy(&ip->daddr, pairs->to_dst, sizeof(pairs->to_dst));
	udp->source = to->to_sport;
	udp->dest = to->to_dport;
}

/* --- TC ---------------------------------------------------------------- */

/* reaches has n bytes of a packet in its linear part, if it has as many. */
static __always_inline int reaches(struct __sk_buff *skb, __u32 n)
{
	if ((void *)(long)skb->data + n <= (void *)(long)skb->data_end)
		return 1;
	if (skb->len < n)
		return 0;
	return bpf_skb_pull_data(skb, n) == 0 && (void *)(long)skb->data + n <= (void *)(long)skb->data_end;
}

/* checksum adds to the UDP checksum what the rewriting takes. What a device still
 * has to finish is only about addresses. 0 means that there is none. */
static __always_inline void checksum(struct __sk_buff *skb, __u32 at, __u16 addresses, __u16 ports)
{
	bpf_l4_csum_replace(skb, at, 0, addresses, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0);
	if (ports && ports != 0xffff)
		bpf_l4_csum_replace(skb, at, 0, ports, BPF_F_MARK_MANGLED_0);
}

static __always_inline void address(struct ethhdr *eth, const struct bpf_fib_lookup *way)
{
	__builtin_memcpy(eth->h_dest, way->dmac, ETH_ALEN);
	__builtin_memcpy(eth->h_source, way->smac, ETH_ALEN);
}

/* size_of returns how large the packets of skb are on the way: it may be a train of
 * several, of which each has headers of that length. */
static __always_inline __u16 size_of(struct __sk_buff *skb, __u16 size, __u16 headers)
{
	if (skb->gso_size)
		return skb->gso_size + headers;
	return size;
}

static __always_inline int send(struct __sk_buff *skb, struct record *r, __u32 bytes, const struct bpf_fib_lookup *way)
{
	used(r, skb->gso_segs > 1 ? skb->gso_segs : 1, bytes);
	return bpf_redirect(way->ifindex, 0);
}

#define L4_4 (ETH_HLEN + sizeof(struct iphdr))
#define L4_6 (ETH_HLEN + sizeof(struct ipv6hdr))

/* judges reports whether a packet with its UDP header there is a first message that TC
 * has to count: what XDP let through isn't counted twice. */
static __always_inline int judges(struct __sk_buff *skb, const struct state *s, __u32 at, const struct udphdr *udp)
{
	struct device *dev = device_of(skb->ifindex);
	struct start b;

	return s->apart && !(dev && dev->seen) && !bpf_skb_load_bytes(skb, at + sizeof(struct udphdr), &b, sizeof(b)) && is_first(&b, udp);
}

static __always_inline int tc4(struct __sk_buff *skb)
{
	struct bpf_fib_lookup way;
	struct udphdr *udp;
	struct device *dev;
	struct ethhdr *eth;
	struct iphdr *ip;
	struct state *s = the_state();
	struct flow f;
	__u16 addresses;
	__u32 bytes;

	eth = (void *)(long)skb->data;
	ip = (void *)(eth + 1);
	udp = (void *)(ip + 1);
	if (!s || (void *)udp + sizeof(*udp) + 4 > (void *)(long)skb->data_end)
		return NEXT;
	if (!plain4(TC, ip))
		return NEXT;
	if (!lookup4(&f, s, ip->saddr, ip->daddr, udp->source, udp->dest))
		return judges(skb, s, L4_4, udp) && beyond4(TC, s, ip, udp->dest) ? TC_ACT_SHOT : NEXT;
	if (!wanted(TC, s, &f, udp, bpf_ntohs(ip->tot_len) - sizeof(*ip), ip->ttl))
		return NEXT;
	if (route4(TC, skb, ip, f.r, size_of(skb, bpf_ntohs(ip->tot_len), sizeof(*ip) + sizeof(*udp)), &way))
		return NEXT;
	dev = device_of(way.ifindex);
	if (!dev || !dev->tc) {
		count(TC, DEVICE);
		return NEXT;
	}
	bytes = bpf_ntohs(udp->len) - sizeof(*udp);
	addresses = addresses4(ip, f.r);
	if (udp->check) {
		checksum(skb, L4_4 + __builtin_offsetof(struct udphdr, check), addresses, ports(udp, f.r));
		eth = (void *)(long)skb->data;
		ip = (void *)(eth + 1);
		udp = (void *)(ip + 1);
		if ((void *)(udp + 1) > (void *)(long)skb->data_end)
			return TC_ACT_SHOT; /* it can't have become shorter */
	}
	rewrite4(ip, udp, addresses, f.r);
	address(eth, &way);
	return send(skb, f.r, bytes, &way);
}

static __always_inline int tc6(struct __sk_buff *skb)
{
	struct bpf_fib_lookup way;
	struct udphdr *udp;
	struct device *dev;
	struct ipv6hdr *ip;
	struct ethhdr *eth;
	struct state *s = the_state();
	struct pairs *pairs;
	struct flow f;
	__u32 bytes;

	eth = (void *)(long)skb->data;
	ip = (void *)(eth + 1);
	udp = (void *)(ip + 1);
	if (!s || (void *)udp + sizeof(*udp) + 4 > (void *)(long)skb->data_end)
		return NEXT;
	if (!plain6(TC, ip))
		return NEXT;
	pairs = lookup6(&f, s, (const __be32 *)&ip->saddr, (const __be32 *)&ip->daddr, udp->source, udp->dest);
	if (!pairs)
		return judges(skb, s, L4_6, udp) && beyond6(TC, s, ip, udp->dest) ? TC_ACT_SHOT : NEXT;
	if (!wanted(TC, s, &f, udp, bpf_ntohs(ip->payload_len), ip->hop_limit))
		return NEXT;
	if (route6(TC, skb, ip, f.r, pairs, size_of(skb, bpf_ntohs(ip->payload_len) + sizeof(*ip), sizeof(*ip) + sizeof(*udp)), &way))
		return NEXT;
	dev = device_of(way.ifindex);
	if (!dev || !dev->tc) {
		count(TC, DEVICE);
		return NEXT;
	}
	bytes = bpf_ntohs(udp->len) - sizeof(*udp);
	if (udp->check) {
		checksum(skb, L4_6 + __builtin_offsetof(struct udphdr, check), addresses6(ip, pairs), ports(udp, f.r));
		eth = (void *)(long)skb->data;
		ip = (void *)(eth + 1);
		udp = (void *)(ip + 1);
		if ((void *)(udp + 1) > (void *)(long)skb->data_end)
			return TC_ACT_SHOT;
	}
	rewrite6(ip, udp, f.r, pairs);
	address(eth, &way);
	return send(skb, f.r, bytes, &way);
}

/* --- ICMP errors ------------------------------------------------------- */

/* An ICMP error is about a packet that has been rewritten here, and quotes its
 * beginning as it was afterwards:
 *
 *	from a router, or the packet's receiver, to the packet's (rewritten) sender
 *	  quoting (rewritten) sender ──▶ receiver
 *
 * The entry for the opposite direction, receiver ──▶ sender, says who these two are
 * on the other side. A copy with these names goes there. The error itself goes on to
 * the stack, which keeps what it says of the path's MTU, and tells the socket of the
 * flow. */

struct error4 {
	struct iphdr ip;
	struct icmp icmp;
	struct iphdr about;
	struct udphdr udp;
};

struct error6 {
	struct ipv6hdr ip;
	struct icmp icmp;
	struct ipv6hdr about;
	struct udphdr udp;
};

/* replaced returns checksum check with a sum in it changed. */
static __always_inline __u16 replaced(__u16 check, void *was, void *now, __u32 n)
{
	return ~folded(bpf_csum_diff(was, n, now, n, (__u16)~check));
}

static __always_inline int copy(struct __sk_buff *skb, void *now, void *was, __u32 n, __u32 ifindex, struct bpf_fib_lookup *way)
{
	struct ethhdr old, eth;

	if (bpf_skb_load_bytes(skb, 0, &old, sizeof(old)))
		return NEXT;
	eth = old;
	address(&eth, way);
	if (bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) == 0 &&
	    bpf_skb_store_bytes(skb, ETH_HLEN, now, n, 0) == 0 && bpf_clone_redirect(skb, ifindex, 0) == 0)
		count(TC, ICMP);
	bpf_skb_store_bytes(skb, ETH_HLEN, was, n, 0);
	bpf_skb_store_bytes(skb, 0, &old, sizeof(old), 0);
	return NEXT;
}

static __always_inline int icmp4(struct __sk_buff *skb)
{
	struct bpf_fib_lookup way;
	struct error4 was, now;
	struct state *s = the_state();
	struct record to = {};
	struct device *dev;
	struct record *r;
	struct flow f;

	if (!s || bpf_skb_load_bytes(skb, ETH_HLEN, &was, sizeof(was)))
		return NEXT;
	if (was.ip.version != 4 || was.ip.ihl != 5 || was.ip.protocol != IPPROTO_ICMP || was.ip.frag_off & bpf_htons(0xbfff) || was.ip.ttl <= 1)
		return NEXT;
	if (was.icmp.type != ICMP_DEST_UNREACH && was.icmp.type != ICMP_TIME_EXCEEDED && was.icmp.type != ICMP_PARAMETERPROB)
		return NEXT;
	if (was.about.ihl != 5 || was.about.protocol != IPPROTO_UDP || was.about.frag_off & bpf_htons(0x1fff) || was.ip.daddr != was.about.saddr)
		return NEXT;
	if (!lookup4(&f, s, was.about.daddr, was.about.saddr, was.udp.dest, was.udp.source) || !holds(TC, s, f.status))
		return NEXT;
	r = f.r;
	now = was;
	now.about.saddr = r->to_dst;
	now.about.daddr = r->to_src;
	now.about.check = replaced(was.about.check, &was.about.saddr, &now.about.saddr, 8);
	now.udp.source = r->to_dport;
	now.udp.dest = r->to_sport;
	if (was.udp.check) {
		now.udp.check = replaced(now.udp.check, &was.about.saddr, &now.about.saddr, 8);
		now.udp.check = replaced(now.udp.check, &was.udp, &now.udp, 4);
	}
	now.icmp.check = replaced(was.icmp.check, &was.about, &now.about, sizeof(was.about) + sizeof(was.udp));
	now.ip.daddr = r->to_dst;
	if (was.ip.saddr == was.about.daddr)
		now.ip.saddr = r->to_src;
	now.ip.ttl--;
	now.ip.check = replaced(was.ip.check, &was.ip.ttl, &now.ip.ttl, 2); /* with the protocol */
	now.ip.check = replaced(now.ip.check, &was.ip.saddr, &now.ip.saddr, 8);
	to.to_src = now.ip.saddr;
	to.to_dst = now.ip.daddr;
	if (route4(TC, skb, &now.ip, &to, bpf_ntohs(was.ip.tot_len), &way))
		return NEXT;
	dev = device_of(way.ifindex);
	if (!dev || !dev->tc)
		return NEXT;
	return copy(skb, &now, &was, sizeof(was), way.ifindex, &way);
}

static __always_inline int icmp6(struct __sk_buff *skb)
{
	struct bpf_fib_lookup way;
	struct error6 was, now;
	struct state *s = the_state();
	const __be32 *src, *dst;
	struct record none = {};
	struct pairs to = {};
	struct device *dev;
	struct pairs *pairs;
	struct record *r;
	struct flow f;

	if (!s || bpf_skb_load_bytes(skb, ETH_HLEN, &was, sizeof(was)))
		return NEXT;
	if (was.ip.version != 6 || was.ip.nexthdr != IPPROTO_ICMPV6 || was.ip.hop_limit <= 1 || was.icmp.type < ICMPV6_DEST_UNREACH ||
	    was.icmp.type > ICMPV6_PARAMPROB || was.about.nexthdr != IPPROTO_UDP)
		return NEXT;
	src = (const __be32 *)&was.about.daddr;
	dst = (const __be32 *)&was.about.saddr;
	if (!same(&was.ip.daddr, dst, 8))
		return NEXT;
	pairs = lookup6(&f, s, src, dst, was.udp.dest, was.udp.source);
	if (!pairs || !holds(TC, s, f.status))
		return NEXT;
	r = f.r;
	now = was;
	__builtin_memcpy(&now.about.saddr, pairs->to_dst, sizeof(pairs->to_dst));
	__builtin_memcpy(&now.about.daddr, pairs->to_src, sizeof(pairs->to_src));
	now.udp.source = r->to_dport;
	now.udp.dest = r->to_sport;
	if (was.udp.check) {
		now.udp.check = replaced(now.udp.check, &was.about.saddr, &now.about.saddr, 32);
		now.udp.check = replaced(now.udp.check, &was.udp, &now.udp, 4);
	}
	__builtin_memcpy(&now.ip.daddr, pairs->to_dst, sizeof(pairs->to_dst));
	if (same(&was.ip.saddr, src, 8))
		__builtin_memcpy(&now.ip.saddr, pairs->to_src, sizeof(pairs->to_src));
	now.ip.hop_limit--;
	/* It is over the addresses too. */
	now.icmp.check = replaced(was.icmp.check, &was.ip.saddr, &now.ip.saddr, 32);
	now.icmp.check = replaced(now.icmp.check, &was.about, &now.about, sizeof(was.about) + sizeof(was.udp));
	__builtin_memcpy(to.to_src, &now.ip.saddr, sizeof(to.to_src));
	__builtin_memcpy(to.to_dst, &now.ip.daddr, sizeof(to.to_dst));
	if (route6(TC, skb, &now.ip, &none, &to, bpf_ntohs(was.ip.payload_len) + sizeof(was.ip), &way))
		return NEXT;
	dev = device_of(way.ifindex);
	if (!dev || !dev->tc)
		return NEXT;
	return copy(skb, &now, &was, sizeof(was), way.ifindex, &way);
}

static __always_inline int next_header(struct __sk_buff *skb, __u32 at)
{
	__u8 *p = (void *)(long)skb->data + at;

	if ((void *)(p + 1) > (void *)(long)skb->data_end)
		return -1;
	return *p;
}

SEC("tc")
int aovlb_tc(struct __sk_buff *skb)
{
	if (skb->pkt_type != PACKET_HOST || skb->vlan_present)
		return NEXT;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (!reaches(skb, L4_4 + sizeof(struct udphdr) + 4))
			return NEXT;
		if (next_header(skb, ETH_HLEN + __builtin_offsetof(struct iphdr, protocol)) == IPPROTO_ICMP)
			return icmp4(skb);
		return tc4(skb);
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (!reaches(skb, L4_6 + sizeof(struct udphdr) + 4))
			return NEXT;
		if (next_header(skb, ETH_HLEN + __builtin_offsetof(struct ipv6hdr, nexthdr)) == IPPROTO_ICMPV6)
			return icmp6(skb);
		return tc6(skb);
	}
	return NEXT;
}

/* --- XDP --------------------------------------------------------------- */

struct vlanhdr {
	__be16 tci, proto;
};

/* taken returns checksum check as it is after the rewriting; 0 means there is none. */
static __always_inline __u16 taken(__u16 check, __u16 addresses, __u16 ports)
{
	if (!check)
		return 0;
	check = ~folded((__u64)(__u16)~check + addresses + ports);
	return check ? check : 0xffff;
}

/* frame gives a frame its Ethernet header, with a VLAN tag or without, and sends it.
 * It has come with a tag, or without. */
static __always_inline int frame(struct xdp_md *ctx, const struct device *dev, const struct bpf_fib_lookup *way, int tagged, __be16 proto)
{
	struct vlanhdr *tag;
	struct ethhdr *eth;
	__u32 by = dev->by;
	__u16 vlan = dev->vlan;
	__be16 tci = 0;

	if (tagged && vlan) {
		tag = (void *)(long)ctx->data + ETH_HLEN;
		if ((void *)(tag + 1) > (void *)(long)ctx->data_end)
			return XDP_DROP;
		tci = tag->tci & bpf_htons(0xf000); /* its priority stays */
	}
	if (tagged && !vlan && bpf_xdp_adjust_head(ctx, sizeof(*tag)))
		return XDP_DROP;
	if (!tagged && vlan && bpf_xdp_adjust_head(ctx, -(int)sizeof(*tag)))
		return XDP_DROP;
	eth = (void *)(long)ctx->data;
	tag = (void *)(eth + 1);
	if ((void *)(tag + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	address(eth, way);
	eth->h_proto = proto;
	if (vlan) {
		eth->h_proto = bpf_htons(ETH_P_8021Q);
		tag->tci = tci | bpf_htons(vlan);
		tag->proto = proto;
	}
	return bpf_redirect(by, 0);
}

/* counts reports whether a packet is a first message. */
static __always_inline int counts(struct xdp_md *ctx, const struct state *s, const struct udphdr *udp)
{
	const struct start *b = (const void *)(udp + 1);

	return s->apart && (void *)(b + 1) <= (void *)(long)ctx->data_end && is_first(b, udp);
}

static __always_inline int xdp4(struct xdp_md *ctx, void *l3, int tagged)
{
	struct bpf_fib_lookup way;
	struct iphdr *ip = l3;
	struct udphdr *udp = (void *)(ip + 1);
	struct device *dev;
	struct state *s = the_state();
	struct flow f;
	__u16 addresses;

	if (!s || (void *)udp + sizeof(*udp) + 4 > (void *)(long)ctx->data_end)
		return XDP_PASS;
	if (!plain4(XDP, ip))
		return XDP_PASS;
	if (!lookup4(&f, s, ip->saddr, ip->daddr, udp->source, udp->dest))
		return counts(ctx, s, udp) && beyond4(XDP, s, ip, udp->dest) ? XDP_DROP : XDP_PASS;
	if (!wanted(XDP, s, &f, udp, bpf_ntohs(ip->tot_len) - sizeof(*ip), ip->ttl))
		return XDP_PASS;
	if (route4(XDP, ctx, ip, f.r, bpf_ntohs(ip->tot_len), &way))
		return XDP_PASS;
	dev = device_of(way.ifindex);
	if (!dev || !dev->xdp)
		return XDP_PASS; /* TC may do it */
	addresses = addresses4(ip, f.r);
	udp->check = taken(udp->check, addresses, ports(udp, f.r));
	rewrite4(ip, udp, addresses, f.r);
	used(f.r, 1, bpf_ntohs(udp->len) - sizeof(*udp));
	return frame(ctx, dev, &way, tagged, bpf_htons(ETH_P_IP));
}

static __always_inline int xdp6(struct xdp_md *ctx, void *l3, int tagged)
{
	struct bpf_fib_lookup way;
	struct ipv6hdr *ip = l3;
	struct udphdr *udp = (void *)(ip + 1);
	struct device *dev;
	struct state *s = the_state();
	struct pairs *pairs;
	struct flow f;

	if (!s || (void *)udp + sizeof(*udp) + 4 > (void *)(long)ctx->data_end)
		return XDP_PASS;
	if (!plain6(XDP, ip))
		return XDP_PASS;
	pairs = lookup6(&f, s, (const __be32 *)&ip->saddr, (const __be32 *)&ip->daddr, udp->source, udp->dest);
	if (!pairs)
		return counts(ctx, s, udp) && beyond6(XDP, s, ip, udp->dest) ? XDP_DROP : XDP_PASS;
	if (!wanted(XDP, s, &f, udp, bpf_ntohs(ip->payload_len), ip->hop_limit))
		return XDP_PASS;
	if (route6(XDP, ctx, ip, f.r, pairs, bpf_ntohs(ip->payload_len) + sizeof(*ip), &way))
		return XDP_PASS;
	dev = device_of(way.ifindex);
	if (!dev || !dev->xdp)
		return XDP_PASS;
	udp->check = taken(udp->check, addresses6(ip, pairs), ports(udp, f.r));
	rewrite6(ip, udp, f.r, pairs);
	used(f.r, 1, bpf_ntohs(udp->len) - sizeof(*udp));
	return frame(ctx, dev, &way, tagged, bpf_htons(ETH_P_IPV6));
}

/* to_us reports whether a frame is for the device it came to. */
static __always_inline int to_us(const struct ethhdr *eth, __u32 number)
{
	struct device *dev = device_of(number);

	return dev && same(eth->h_dest, dev->mac, 3);
}

SEC("xdp")
int aovlb_xdp(struct xdp_md *ctx)
{
	struct ethhdr *eth = (void *)(long)ctx->data;
	void *l3 = eth + 1;
	struct vlanhdr *tag = l3;
	int tagged = 0;
	__be16 proto;

	if ((void *)(tag + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	if (!to_us(eth, ctx->ingress_ifindex))
		return XDP_PASS;
	proto = eth->h_proto;
	if (proto == bpf_htons(ETH_P_8021Q)) {
		proto = tag->proto;
		tagged = 1;
		l3 = tag + 1;
	}
	if (proto == bpf_htons(ETH_P_IP))
		return xdp4(ctx, l3, tagged);
	if (proto == bpf_htons(ETH_P_IPV6))
		return xdp6(ctx, l3, tagged);
	return XDP_PASS;
}

/* Helpers that look up routes are there for programs with a licence like this. */
char licence[] SEC("license") = "Dual BSD/GPL";
