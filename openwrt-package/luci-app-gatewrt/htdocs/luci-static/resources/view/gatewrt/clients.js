'use strict';
'require view';
'require poll';
'require gatewrt.router as router';
'require gatewrt.words as words';

/* The phones and laptops that this router lets into its networks. They are made, named and removed by a network's admin. */

function state(client) {
	if (words.isFresh(client))
		return words.label('good', _('online'));

	return client.handshake_s == null ? _('never here') : _('offline');
}

function may(client) {
	return [].concat(
		client.internet ? [ _('use the Internet from here') ] : [],
		client.reachable ? [ _('be reached by others') ] : []
	).join(', ') || '–';
}

/* What a client is called only its admin knows; the key tells one from another. */
function row(client) {
	return [
		[ ...words.lines(client.addresses), E('code', { 'title': client.key, 'style': 'font-size:85%' }, [ '%s…'.format(client.key.substring(0, 10)) ]) ],
		[ state(client) ],
		[ words.ago(client.handshake_s), words.small(client.endpoint ?? _('endpoint unknown')) ],
		words.lines(client.prefixes),
		[ may(client) ],
		[ '↓ %s'.format(words.bytes(client.rx)), E('br'), '↑ %s'.format(words.bytes(client.tx)) ]
	];
}

function section(network) {
	const clients = (network.clients ?? []).slice().sort((a, b) => (a.handshake_s ?? Infinity) - (b.handshake_s ?? Infinity));
	const online = clients.filter(words.isFresh).length;

	return E('div', { 'class': 'cbi-section', 'data-network': network.name }, [
		E('h3', {}, [ _('Network %s').format(network.name) ]),
		E('p', {}, [ _('%d of %d clients are online.').format(online, clients.length) ]),
		words.table(
			[ _('Client'), _('State'), _('Last heard'), _('Behind it'), _('May'), _('Traffic') ],
			clients.map(row),
			_('The network\'s admin has let no client in here yet.')
		)
	]);
}

function nowhere() {
	return words.notice('notice', _('This router lets no clients in'), [
		_('Phones and laptops come into a network through a router that its admin has made their gateway, on the coordinator\'s page.'),
		_('Whether this router may become one is said in its settings.')
	]);
}

return view.extend({
	load() {
		return router.look();
	},

	render(first) {
		const alarm = E('div');
		const body = E('div');
		const draw = ({ status, error }) => {
			words.show(alarm, error ? [ words.problem(error) ] : []);

			if (status) {
				const gateways = status.networks.filter((network) => network.ingress);

				words.show(body, gateways.length ? gateways.map(section) : [ nowhere() ]);
			}
		};

		draw(first);
		poll.add(() => router.look().then(draw), 5);

		return E('div', {}, [
			E('h2', {}, [ _('Clients') ]),
			E('div', { 'class': 'cbi-map-descr' }, [ _('Phones and laptops that come into the network through this router.') ]),
			alarm,
			body
		]);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
