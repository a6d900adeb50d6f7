'use strict';
'require baseclass';

/*
 * States as words, and the small parts of which all views are made.
 *
 * LuCI reads a bare string as HTML; children therefore always come in an array, where a string is a text node.
 */

/* Who was heard within these seconds is there: WireGuard shakes hands every two minutes, and gives up after three. */
const FRESH = 180;

const KINDS = {
	good: 'label success',
	busy: 'label notice',
	odd: 'label warning',
	bad: 'label'
};

const PLACE = 'margin-left:0';
/* No theme has a class for this one; some have the colours. */
const RED = 'background-color:var(--error-color-medium, #c43c35);color:var(--on-error-color, #fff)';

return baseclass.extend({
	/* Seconds as a person says them. */
	span(seconds) {
		if (seconds < 120)
			return _('%d s').format(seconds);

		if (seconds < 7200)
			return _('%d min').format(seconds / 60);

		if (seconds < 172800)
			return _('%d h').format(seconds / 3600);

		return _('%d days').format(seconds / 86400);
	},

	ago(seconds) {
		return seconds == null ? _('never') : _('%s ago').format(this.span(seconds));
	},

	bytes(count) {
		return '%1024.1mB'.format(count);
	},

	isFresh(peer) {
		return peer.handshake_s != null && peer.handshake_s < FRESH;
	},

	list(values) {
		return (values ?? []).length ? values.join(', ') : '–';
	},

	/* IPv4, IPv6 or both, as an exit offers them. */
	families(offer) {
		if (offer?.v4 && offer?.v6)
			return _('IPv4 and IPv6');

		return offer?.v4 ? _('IPv4 only') : offer?.v6 ? _('IPv6 only') : _('nothing');
	},

	/* Whose traffic, as a scope lists it. */
	traffic(of) {
		if (of == 'all')
			return _('the LANs and the router itself');

		if (of == 'router')
			return _('the router itself');

		return of.startsWith('dev:') ? _('hosts at %s').format(of.substring(4)) : of;
	},

	label(kind, text) {
		return E('span', { 'class': KINDS[kind], 'style': kind == 'bad' ? [ PLACE, RED ].join(';') : PLACE }, [ text ]);
	},

	/* A box for what needs attention: `lines` are texts or nodes. */
	notice(kind, title, lines) {
		return E('div', { 'class': 'alert-message %s'.format(kind), 'role': kind == 'error' ? 'alert' : 'status' }, [
			E('h4', {}, [ title ])
		].concat((lines ?? []).map((line) => E('p', {}, [ line ]))));
	},

	/* Facts, a row each: `[ title, value, … ]`; those without a value are left out. */
	facts(rows) {
		return E('table', { 'class': 'table' }, rows.filter(([ , ...values ]) => values.some((value) => value != null))
			.map(([ title, ...values ]) => E('tr', { 'class': 'tr' }, [
				E('td', { 'class': 'td left', 'width': '33%' }, [ title ]),
				E('td', { 'class': 'td left' }, values.filter((value) => value != null))
			])));
	},

	/* An input, or what it is in with its id, with its title before and its hint below it. */
	field(title, input, hint, id) {
		return E('div', { 'class': 'cbi-value' }, [
			E('label', { 'class': 'cbi-value-title', 'for': id ?? input.id }, [ title ]),
			E('div', { 'class': 'cbi-value-field' }, [ input ].concat(hint ? [ E('div', { 'class': 'cbi-value-description' }, [ hint ]) ] : []))
		]);
	},

	/* A table that becomes a list of cards on a phone. Each cell is an array of texts and nodes. */
	table(titles, rows, nothing) {
		const head = E('tr', { 'class': 'tr table-titles' }, titles.map((title) => E('th', { 'class': 'th' }, [ title ])));
		const body = rows.map((cells, at) => E('tr', { 'class': 'tr cbi-rowstyle-%d'.format(at % 2 + 1) },
			cells.map((cell, column) => E('td', { 'class': 'td', 'data-title': titles[column] }, [ ...cell ]))));
		const none = E('tr', { 'class': 'tr placeholder' }, [
			E('td', { 'class': 'td', 'colspan': titles.length }, [ E('em', {}, [ nothing ]) ])
		]);

		return E('table', { 'class': 'table' }, [ head ].concat(body.length ? body : [ none ]));
	},

	/* Small print below a cell's first line. */
	small(text) {
		return E('div', { 'style': 'opacity:.75;font-size:90%' }, [ text ]);
	},

	/* One address or prefix a line, which breaks nowhere else. */
	lines(values) {
		return (values ?? []).length ? values.map((value) => E('div', {}, [ value ])) : [ '–' ];
	},

	/* Replaces what `node` shows; what had the focus keeps it, by its id. */
	show(node, children) {
		const focused = node.contains(document.activeElement) ? document.activeElement.id : null;

		node.replaceChildren(...children.filter((child) => child != null));

		if (focused)
			document.getElementById(focused)?.focus();
	},

	/* Why there is no status to show, and what to do about it. */
	problem(error) {
		switch (error.kind) {
		case 'not_running':
			return this.notice('error', _('GateWRT is not running'), [
				_('Its tunnels stay as they are, but nothing follows changes any more.'),
				E('a', { 'href': L.url('admin/system/startup') }, [ _('Start it under System → Startup') ])
			]);

		case 'no_plugin':
		case 'denied':
			return this.notice('error', error.message);

		default:
			return this.notice('warning', _('The router does not answer at the moment'), [ error.message ]);
		}
	}
});
