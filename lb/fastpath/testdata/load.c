/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
 *
 * Both ends of the speed tests: a generator that is run again and again on one frame,
 * which it gives another flow's addresses each time; and a sink that counts, and may
 * send back. Built by testdata/generate.sh.
 *
 * The generator keeps a window of packets under way: it waits, on its own processor,
 * until as many have arrived as it takes to send the next. So what is between always
 * has work, and nothing is lost for lack of room. To offer more than is carried, and
 * have the rest dropped, would disturb what is measured: the pages of dropped frames
 * go back to where those of carried ones go to as well, through one lock.
 *
 * The kernel uses the pages of its test frames again, as those have left them who had
 * them last: with other addresses, and less time to live. So all of the headers is
 * written each time.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct frame {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	__be32 spi;
} __attribute__((packed));

/* A first message has zeros in place of an SPI, and then what IKE knows the client by. */
struct first {
	struct frame frame;
	__u64 initiator;
} __attribute__((packed));

struct settings {
	__u32 flows;
	__u32 device; /* to send by */
	__u32 bounce; /* the sink sends back */
	__u32 window; /* packets under way, STEP at least; 0: no bound */
	__u32 here;   /* which of the counts is the sink's */
	__u32 until;  /* which of them the generator waits for */
	__u32 pause;  /* rounds of waiting after each packet */
	__u32 strangers; /* before each so many packets comes a first message; 0: never */
	__u32 alike;     /* in its place comes a packet like others, which isn't counted */
	struct frame first; /* what each packet begins with */
	__u16 pad2;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} setting SEC(".maps");

/* A count has a line of the cache of its own, and one processor that writes it. */
struct count {
	__u64 n;
	__u64 spare[15];
};

/* Packets that arrived at the gateway, and at the client. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct count);
} counts SEC(".maps");

struct sent {
	__u64 n;    /* packets */
	__u64 lost; /* given up on: they were under way for too long */
	__u64 base; /* n - lost and what had arrived were equal, but for this */
	__u64 first, last; /* when packets were sent, in ns */
	__u64 strangers;   /* that were sent */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sent);
} sents SEC(".maps");

static __always_inline __u16 folded(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

struct waiting {
	__u64 want;
	__u32 which; /* of the counts */
};

/* look looks seldom, as each time takes the count's line from its writer. */
static long look(__u32 i, struct waiting *w)
{
	__u32 which = w->which;
	struct count *c = bpf_map_lookup_elem(&counts, &which);

	if (!c || *(volatile __u64 *)&c->n >= w->want)
		return 1;
#pragma unroll
	for (int j = 0; j < 40; j++)
		bpf_ktime_get_ns();
	return 0;
}

static long idle(__u32 i, void *ctx)
{
	bpf_ktime_get_ns();
	return 0;
}

#define STEP 64 /* packets between two looks, and of one batch of the kernel's */
#define LONG 20000 /* looks: some 20 ms */

static __always_inline void await(struct settings *s, struct sent *sent)
{
	struct waiting w = { .which = s->until };
	__u32 which = s->until;
	struct count *c;

	if (sent->n % STEP)
		return;
	sent->last = bpf_ktime_get_ns();
	if (!sent->first)
		sent->first = sent->last;
	w.want = sent->n + STEP + sent->base - s->window;
	if (!s->window || (__s64)w.want <= 0)
		return;
	if (bpf_loop(LONG, look, &w, 0) < LONG)
		return;
	c = bpf_map_lookup_elem(&counts, &which);
	if (c) {
		sent->lost += sent->n + sent->base - c->n;
		sent->base = c->n - sent->n;
	}
}

static __always_inline void from(struct frame *f, struct settings *s, __u32 addr, __u16 port)
{
	__u32 was = s->first.ip.saddr, now = bpf_htonl(addr);

	*f = s->first;
	f->ip.check = ~folded((__u16)~f->ip.check + (__u16)~was + (__u16)~(was >> 16) + (__u16)now + (now >> 16));
	f->ip.saddr = now;
	f->udp.source = bpf_htons(port);
}

/* Flow i is of 10.(64 + i / 65536).(i / 256 % 256).(i % 256), port 1024 + i % 60000. */
SEC("xdp")
int generate(struct xdp_md *ctx)
{
	struct frame *f = (void *)(long)ctx->data;
	struct first *stranger = (void *)f;
	__u32 zero = 0, i;
	struct settings *s = bpf_map_lookup_elem(&setting, &zero);
	struct sent *sent = bpf_map_lookup_elem(&sents, &zero);

	if (!s || !sent || !s->flows || (void *)(stranger + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	await(s, sent);
	if (s->pause)
		bpf_loop(s->pause, idle, 0, 0);
	i = bpf_get_prandom_u32();
	if (s->strangers && i % s->strangers == 0 && s->alike) {
		sent->base++;
		i = bpf_get_prandom_u32();
	} else if (s->strangers && i % s->strangers == 0) {
		sent->strangers++;
		i = bpf_get_prandom_u32();
		from(f, s, 0x0a480000 + i % 0x80000, 1024 + i % 60000);
		f->spi = 0;
		stranger->initiator = (__u64)i << 32 | sent->strangers;
		return bpf_redirect(s->device, 0);
	} else {
		sent->n++;
	}
	i %= s->flows;
	from(f, s, 0x0a400000 + i, 1024 + i % 60000);
	return bpf_redirect(s->device, 0);
}

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	struct frame *f = (void *)(long)ctx->data;
	__u32 zero = 0, here, a;
	struct settings *s = bpf_map_lookup_elem(&setting, &zero);
	unsigned char mac[ETH_ALEN];
	struct count *n;
	__be16 port;

	if (!s || (void *)(f + 1) > (void *)(long)ctx->data_end || f->eth.h_proto != bpf_htons(ETH_P_IP) || f->ip.protocol != IPPROTO_UDP)
		return XDP_PASS;
	if (!f->spi)
		return XDP_DROP;
	here = s->here;
	n = bpf_map_lookup_elem(&counts, &here);
	if (n)
		n->n++;
	if (!s->bounce)
		return XDP_DROP;
	__builtin_memcpy(mac, f->eth.h_dest, ETH_ALEN);
	__builtin_memcpy(f->eth.h_dest, f->eth.h_source, ETH_ALEN);
	__builtin_memcpy(f->eth.h_source, mac, ETH_ALEN);
	a = f->ip.saddr;
	f->ip.saddr = f->ip.daddr;
	f->ip.daddr = a;
	port = f->udp.source;
	f->udp.source = f->udp.dest;
	f->udp.dest = port;
	f->udp.check = 0; /* a socket's isn't finished yet */
	return bpf_redirect(ctx->ingress_ifindex, 0);
}

/* The least that an XDP program can do: it sends everything on to a device. */
SEC("xdp")
int wire(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct settings *s = bpf_map_lookup_elem(&setting, &zero);

	return s ? bpf_redirect(s->device, 0) : XDP_PASS;
}

char licence[] SEC("license") = "Dual BSD/GPL";
