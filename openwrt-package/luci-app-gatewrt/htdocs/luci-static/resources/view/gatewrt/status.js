'use strict';
'require view';
'require poll';
'require ui';
'require gatewrt.router as router';
'require gatewrt.words as words';
'require gatewrt.dialogs as dialogs';

/* What this router is in its networks, what it does there, and what does not work. Changes nothing by itself. */

function isReached(peer) {
	return peer.path != 'down';
}

/* What is wrong in a network, worst first: `[ what, why ]`. */
function troubles(network) {
	const blocked = network.scopes.filter((scope) => scope.state == 'blocked');
	const removed = network.control == 'removed';

	return [].concat(
		removed ? [ [ _('This router was removed from the network'), _('Leave it, then join with a new code.') ] ] : [],
		network.control == 'connecting' ? [ [ _('No link to the coordinator; tunnels go on without it'), network.control_error ] ] : [],
		blocked.map((scope) => [ _('Internet traffic is blocked: %s').format(scope.name), scope.why ]),
		network.rolled_back ? [ [ _('A change was rolled back'), network.rolled_back.why ] ] : [],
		/* The router's own words for the same. */
		network.failures.filter((failure) => !(removed && failure.what.startsWith('be part of'))).map((failure) => [ _('Could not %s').format(failure.what), failure.why ])
	);
}

function trouble([ what, why ]) {
	return E('span', {}, [ E('strong', {}, [ what ]), why ? ': %s'.format(why) : '' ]);
}

/* Settings that are not in effect, and are no network's trouble. */
function faults(status) {
	const unused = status.config ?? [];

	return unused.length
		? [ words.notice('warning', _('Settings of this router that are not in effect'), unused) ]
		: [];
}

/* The first thing that a person reads. */
function summary(status) {
	const broken = Object.entries(status.unreadable ?? {});
	const unused = status.config ?? [];
	const bad = status.networks.filter((network) => troubles(network).length);
	const peers = status.networks.flatMap((network) => network.peers);
	const reached = peers.filter(isReached).length;
	const well = reached == peers.length ? _('All is well') : _('Works');
	const state = bad.length || broken.length || unused.length
		? words.label('odd', _('Needs attention'))
		: status.settled ? words.label('good', well) : words.label('busy', _('Changes under way'));
	const others = peers.length
		? _('%d of %d other routers are reached.').format(reached, peers.length)
		: _('No other router is here yet.');

	return [
		E('p', {}, [ state, ' ', others ]),
		...faults(status),
		...broken.map(([ name, why ]) => words.notice('warning', _('Network %s can\'t be read and is left as it runs').format(name), [ why ]))
	];
}

function welcome() {
	return words.notice('notice', _('This router is in no network yet'), [
		_('Ask the admin of a network for a join code.'),
		E('a', { 'class': 'btn cbi-button cbi-button-action important', 'href': L.url('admin/vpn/gatewrt/join') }, [ _('Join a network') ])
	]);
}

function control(network) {
	switch (network.control) {
	case 'connected':
		return words.label('good', _('connected'));

	case 'removed':
		return words.label('bad', _('removed'));

	default:
		return words.label('odd', _('connecting'));
	}
}

function tunnel(network) {
	const by = network.wireguard == 'kernel'
		? _('WireGuard of the kernel')
		: network.wireguard ? _('WireGuard by %s').format(network.wireguard) : _('no WireGuard yet');

	return _('%s, %s, UDP port %d').format(network.interface, by, network.port);
}

/* What others have of this router, a line each. */
function duties(network) {
	const clients = network.clients ?? [];
	const online = clients.filter(words.isFresh).length;

	return [].concat(
		network.egress.map((egress) => egress.nat
			? _('Leads to %s; hosts there see this router\'s address').format(egress.prefix)
			: _('Leads to %s; hosts there see who really asks').format(egress.prefix)),
		network.ingress ? [ _('Lets phones and laptops in: %d, of which %d are online').format(clients.length, online) ] : [],
		network.is_exit ? [ _('Is an exit to the Internet: %s').format(words.families(network.offer)) ] : []
	);
}

const VOICES = {
	owner: () => _('as set on this router'),
	router: () => _('as chosen on this router'),
	coordinator: () => _('as the network\'s admin says')
};

/* What becomes of one scope's traffic. */
function scopeLine(one) {
	const away = one.rtt_ms != null ? ', %d ms'.format(one.rtt_ms) : '';
	const way = {
		exit: () => [ E('strong', {}, [ one.exit ?? '?' ]), away ],
		blocked: () => [ words.label('bad', _('blocked')), ' ', _('no exit works, and the kill switch is on') ],
		wan: () => [ words.label('odd', _('straight out')), ' ', _('no exit works, and the kill switch is off') ]
	}[one.state] ?? (() => [ _('elsewhere') ]);

	return E('div', {}, [
		one.of.map(words.traffic).join(', '), ' → ', ...way(),
		one.why && one.state != 'blocked' ? words.small(one.why) : null
	].filter((part) => part != null));
}

function internet(network) {
	const by = VOICES[network.scopes_by] ?? (() => null);

	if (!network.scopes.length)
		return [ _('not through this network'), network.scopes_by == 'coordinator' ? null : words.small(by()) ];

	return [ ...network.scopes.map(scopeLine), words.small(by()) ];
}

function facts(network) {
	const does = duties(network);

	return words.facts([
		[ _('This router'), E('strong', {}, [ network.node_name ]), words.small(words.list(network.addresses)) ],
		[ _('Coordinator'), control(network), words.small(network.broker) ],
		[ _('Tunnel'), tunnel(network) ],
		[ _('Does for others'), ...(does.length ? does.map((line) => E('div', {}, [ line ])) : [ _('nothing but being reached itself') ]) ],
		[ _('Internet traffic'), ...internet(network) ],
		[ _('On trial'), network.trial_s == null ? null
			: _('The last change, for %d s more: it is rolled back unless the coordinator stays within reach.').format(network.trial_s) ]
	]);
}

function path(peer) {
	if (peer.path == 'direct')
		return words.label('good', _('direct'));

	return peer.path == 'down' ? words.label('bad', _('not reached')) : words.label('odd', _('indirect'));
}

function peerRow(peer) {
	return [
		[ E('strong', {}, [ peer.name ]), words.small(peer.addresses.length ? peer.addresses[0] : '–') ],
		words.lines(peer.prefixes),
		[ path(peer), peer.rtt_ms != null ? ' %d ms'.format(peer.rtt_ms) : '' ],
		[ words.ago(peer.handshake_s), words.small(peer.endpoint ?? _('endpoint unknown')) ],
		[ '↓ %s'.format(words.bytes(peer.rx)), E('br'), '↑ %s'.format(words.bytes(peer.tx)) ]
	];
}

/* Those that are not reached come first. */
function peerTable(network) {
	const sorted = network.peers.slice().sort((a, b) => isReached(a) - isReached(b) || a.name.localeCompare(b.name));

	return words.table(
		[ _('Router'), _('Leads to'), _('Path'), _('Last heard'), _('Traffic') ],
		sorted.map(peerRow),
		_('No other router is in this network yet.')
	);
}

function exitRow(exit) {
	const answers = {
		true: () => words.label('good', _('answers')),
		false: () => words.label('bad', _('silent'))
	}[exit.alive] ?? (() => _('not asked'));

	return [
		[ E('strong', {}, [ exit.name ]) ],
		[ words.families(exit.offer) ],
		[ answers(), exit.rtt_ms != null ? ' %d ms'.format(exit.rtt_ms) : '' ],
		[ words.list(exit.used_by) ]
	];
}

function exits(network) {
	return [
		E('h4', {}, [ _('Exits to the Internet') ]),
		words.table([ _('Exit'), _('Leads to'), _('State'), _('Used for') ], network.exits.map(exitRow), '')
	];
}

/* A choice of this page does not outvote the router's settings. */
function chooser(network) {
	if (!network.exits.length && !network.scopes.length)
		return [];

	if (network.scopes_by == 'owner')
		return [ E('a', { 'class': 'btn cbi-button', 'href': L.url('admin/vpn/gatewrt/settings') }, [ _('Change the exit in Settings') ]) ];

	return [ E('button', {
		'class': 'btn cbi-button cbi-button-action',
		'id': 'gatewrt-exit-%s'.format(network.name),
		'disabled': router.mayChange() ? null : true,
		'click': () => dialogs.chooseExit(network)
	}, [ _('Change the exit…') ]) ];
}

function section(network) {
	const bad = troubles(network);

	return E('div', { 'class': 'cbi-section', 'data-network': network.name }, [
		E('h3', {}, [ _('Network %s').format(network.name) ]),
		bad.length ? words.notice('warning', _('This needs attention'), bad.map(trouble)) : '',
		facts(network),
		E('p', {}, chooser(network)),
		E('h4', {}, [ _('Other routers') ]),
		peerTable(network),
		...(network.exits.length ? exits(network) : [])
	]);
}

const FIREWALLS = { nft: 'nftables', iptables: 'iptables' };

function about(status) {
	const rules = FIREWALLS[status.firewall];

	return words.small([
		_('GateWRT %s, up for %s, %s of memory').format(status.version, words.span(status.uptime_s), words.bytes(status.memory_kib * 1024)),
		...(rules ? [ _('rules by %s').format(rules) ] : [])
	].join(', '));
}

return view.extend({
	load() {
		return router.look();
	},

	render(first) {
		const alarm = E('div');
		const body = E('div', {}, []);
		const draw = ({ status, error }) => {
			/* What was seen last stays, below what is wrong now. */
			words.show(alarm, error ? [ words.problem(error) ] : []);

			if (status)
				words.show(body, [
					...(status.networks.length || Object.keys(status.unreadable ?? {}).length ? summary(status) : [ ...faults(status), welcome() ]),
					...status.networks.map(section),
					about(status)
				]);
		};

		draw(first);
		poll.add(() => router.look().then(draw), 5);

		return E('div', {}, [
			E('h2', {}, [ _('GateWRT') ]),
			alarm,
			body,
			E('div', { 'class': 'right' }, [
				E('button', { 'class': 'btn cbi-button', 'click': ui.createHandlerFn(this, () => dialogs.diagnose()) }, [ _('Look for faults') ])
			])
		]);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
