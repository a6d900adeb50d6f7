'use strict';
'require view';
'require form';
'require rpc';
'require uci';
'require gatewrt.router as router';
'require gatewrt.words as words';

/* The router owner's word, /etc/config/gatewrt: what this router may do, and where its Internet traffic goes. */

const NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const ADDRESS = /^[0-9a-fA-F.:]+$/;
const PREFIX = /^[0-9a-fA-F.:]+\/\d{1,3}$/;
const DEVICE = /^dev:[^\s/]{1,15}$/;
const ENDPOINT = /^(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-fA-F:.]+\]):\d{1,5}$/;

const devices = rpc.declare({ object: 'luci-rpc', method: 'getNetworkDevices', expect: { '': {} } });

/* UCI allows no “-” in a section's name: a “_” stands for it. */
const sectionOf = (network) => network.replace(/-/g, '_');
const networkOf = (section) => section.replace(/_/g, '-');

function isTraffic(text) {
	return [ 'lan', 'router', 'all' ].includes(text) || DEVICE.test(text) || ADDRESS.test(text) || PREFIX.test(text);
}

/* Bridges and their VLANs are what people call a LAN; the tunnels and the loopback are not to be chosen. */
function isLan(device) {
	return device.up !== false && !/^(lo|gw-|wg|tun)/.test(device.name ?? '');
}

/* A test of each text that is not empty, with what is expected. */
function expects(test, what) {
	return (section, text) => !text || test(text) || _('Expecting: %s').format(what);
}

function flag(section, tab, name, title, description, fallback) {
	const option = section.taboption(tab, form.Flag, name, title, description);

	option.default = fallback;
	option.rmempty = false;

	return option;
}

function traffic(option, lans) {
	option.value('lan', _('all hosts in the LANs'));
	option.value('router', _('the router itself'));
	option.value('all', _('both: the LANs and the router'));
	lans.forEach((name) => option.value('dev:%s'.format(name), _('hosts at %s').format(name)));
	option.placeholder = 'lan';
	option.validate = expects(isTraffic, _('lan, router, all, dev: and an interface, or an address or prefix of a LAN'));
}

function program(map) {
	const s = map.section(form.NamedSection, 'main', 'gatewrt', _('This router'));
	let o;

	s.tab('general', _('General'));
	s.tab('advanced', _('Advanced'));

	flag(s, 'general', 'enabled', _('Take part'), _('Off: all tunnels are taken down; keys and memberships stay.'), '1');

	o = s.taboption('general', form.ListValue, 'log_level', _('Log'), _('What of it is written to the system log.'));
	o.value('error', _('errors'));
	o.value('warn', _('warnings'));
	o.value('info', _('what changes'));
	o.value('debug', _('details'));
	o.value('trace', _('everything'));
	o.default = 'info';

	o = s.taboption('advanced', form.Value, 'wireguard', _('WireGuard'), _('A restart of GateWRT puts this into effect.'));
	o.value('auto', _('the kernel\'s, else a program\'s'));
	o.value('kernel', _('the kernel\'s alone'));
	o.placeholder = 'auto';
	o.validate = expects((text) => !/\s/.test(text), _('auto, kernel, or a program\'s name or path'));

	o = s.taboption('advanced', form.ListValue, 'firewall', _('Firewall'), _('What rules are written with. A restart of GateWRT puts this into effect.'));
	o.value('auto', _('what is there'));
	o.value('nft', 'nftables');
	o.value('iptables', 'iptables');
	o.default = 'auto';

	o = s.taboption('advanced', form.Value, 'heartbeat', _('Report every'), _('Seconds between two reports to the coordinator while nothing changes, at the least.'));
	o.datatype = 'range(10, 3600)';
	o.placeholder = '60';
}

/* The ports of two networks must differ. */
function portIsFree(section, port) {
	const other = uci.sections('gatewrt', 'network').find((one) => one['.name'] != section && port && one.listen_port == port);

	return other ? _('Network %s has this port').format(networkOf(other['.name'])) : true;
}

function clientIsSound(section, text) {
	if (!text || text == '0' || text == 'auto')
		return text == '0' && uci.sections('gatewrt', 'exit').some((one) => networkOf(one.network ?? '') == networkOf(section))
			? _('Below, traffic of this network goes through an exit: delete that first')
			: true;

	const names = text.trim().split(/\s+/);
	const sound = names.every((name, at) => NAME.test(name) && names.indexOf(name) == at && (name != 'auto' || at == names.length - 1));

	return sound || _('Expecting: %s').format(_('names of routers in their order, each once, “auto” as the last'));
}

function membership(map, section, exits, lans) {
	const s = map.section(form.NamedSection, section, 'network', _('Network %s').format(networkOf(section)));
	let o;

	s.tab('may', _('What it may do'), _('The network\'s admin decides what this router does, within what is allowed here.'));
	s.tab('internet', _('Internet traffic'));
	s.tab('advanced', _('Advanced'));

	flag(s, 'may', 'enabled', _('Take part'), _('Off: the tunnel of this network is taken down; its keys stay.'), '1');
	flag(s, 'may', 'allow_egress', _('Lead into its LANs'), _('Others may reach prefixes behind this router.'), '1');
	flag(s, 'may', 'allow_ingress', _('Let in phones and laptops'), _('They come into the network through this router.'), '1');
	flag(s, 'may', 'allow_exit', _('Be an exit to the Internet'), _('Others\' Internet traffic may go out here, under this line\'s address.'), '0');

	o = s.taboption('internet', form.Value, 'exit_client', _('Goes through'), _('Empty: as the network\'s admin says. While no exit works that traffic goes nowhere.'));
	o.value('auto', _('the nearest exit that works'));
	exits.forEach((name) => o.value('%s auto'.format(name), _('%s, else another').format(name)));
	o.value('0', _('no exit, whatever the admin says'));
	o.validate = clientIsSound;

	o = s.taboption('internet', form.DynamicList, 'exit_scope', _('Whose traffic'), _('The router itself stays on its own line unless it is named.'));
	o.depends({ 'exit_client': /^(?!0$)./ });
	traffic(o, lans);

	o = s.taboption('advanced', form.Value, 'listen_port', _('UDP port'), _('Where WireGuard listens. Empty: 51820 where it is free.'));
	o.datatype = 'port';
	o.validate = portIsFree;

	o = s.taboption('advanced', form.DynamicList, 'endpoint', _('Reached from outside at'), _('Where others reach this router when it can\'t know itself, as behind a port forward.'));
	o.placeholder = '203.0.113.7:51820';
	o.validate = expects((text) => ENDPOINT.test(text), _('address:port, an IPv6 address in brackets'));

	o = s.taboption('advanced', form.Value, 'mtu', _('MTU'), _('Empty: the network\'s.'));
	o.datatype = 'range(1280, 1420)';
}

function scopes(map, networks, exits, lans) {
	const s = map.section(form.GridSection, 'exit', _('Traffic that goes its own way'),
		_('One entry for each part of this router\'s traffic that needs an exit of its own. Of several the most precise counts: prefixes, then interfaces, then the router, then all.'));
	let o;

	s.addremove = true;
	s.anonymous = false;
	s.nodescriptions = true;
	s.addbtntitle = _('Add');
	/* The daemon knows no capital letters in names. */
	s.handleAdd = (ev, name) => form.GridSection.prototype.handleAdd.call(s, ev, name.toLowerCase());
	s.modaltitle = (section) => [ _('Traffic'), networkOf(section) ].join(' » ');

	o = s.option(form.Flag, 'enabled', _('Enabled'));
	o.default = '1';
	o.rmempty = false;
	o.editable = true;

	o = s.option(form.ListValue, 'network', _('Network'));
	networks.forEach((name) => o.value(name));
	o.rmempty = false;

	o = s.option(form.DynamicList, 'scope', _('Whose traffic'));
	traffic(o, lans);

	o = s.option(form.DynamicList, 'exit', _('Exits in order'), _('“auto” as the last, or alone: the nearest other that works.'));
	o.value('auto', _('the nearest that works'));
	exits.forEach((name) => o.value(name));
	o.rmempty = false;
	o.validate = expects((text) => NAME.test(text), _('the name of a router, or auto'));

	o = s.option(form.Flag, 'kill_switch', _('Kill switch'), _('While no exit works the traffic goes nowhere, instead of straight out.'));
	o.default = '1';
	o.rmempty = false;

	o = s.option(form.Flag, 'allow_lan', _('Reach LANs'), _('The router\'s LANs and the network\'s other sites are reached past the exit.'));
	o.default = '1';
	o.rmempty = false;
	o.modalonly = true;

	o = s.option(form.ListValue, 'ipv6', _('IPv6'), _('While the exit in use leads to IPv4 alone.'));
	o.value('block', _('goes nowhere'));
	o.value('wan', _('goes straight out'));
	o.default = 'block';
	o.modalonly = true;

	o = s.option(form.Flag, 'redirect_dns', _('Redirect DNS'), _('Queries go to the resolver below, or to the exit\'s own. Off: where hosts send them.'));
	o.default = '1';
	o.rmempty = false;
	o.modalonly = true;

	o = s.option(form.DynamicList, 'dns', _('Resolvers'), _('Asked through the exit. Empty: its own.'));
	o.datatype = 'ipaddr("nomask")';
	o.depends('redirect_dns', '1');
	o.modalonly = true;

	o = s.option(form.DynamicList, 'exclude', _('Exceptions'), _('Addresses and prefixes that are reached as if there were no exit.'));
	o.validate = expects((text) => ADDRESS.test(text) || PREFIX.test(text), _('an address or a prefix'));
	o.modalonly = true;
}

/* Networks that were joined have a form of their own, also while the file has no section for them. */
function addMissing(joined) {
	const there = uci.sections('gatewrt', 'network').map((section) => section['.name']);

	joined.map(({ name }) => sectionOf(name)).filter((section) => !there.includes(section))
		.forEach((section) => uci.add('gatewrt', 'network', section));

	if (!uci.get('gatewrt', 'main'))
		uci.add('gatewrt', 'gatewrt', 'main');
}

/* The daemon keeps to what it read before when it can't use the file: nobody would notice. */
function faults({ checks }) {
	return checks.filter((check) => check.what == 'configuration' && !check.ok)
		.map((check) => words.notice('error', _('Some of these settings are not in effect'), [ check.found ]));
}

return view.extend({
	load() {
		return Promise.all([ router.look(), L.resolveDefault(devices(), {}), L.resolveDefault(router.diag(), { checks: [] }), uci.load('gatewrt') ]);
	},

	render([ { status }, links, diag ]) {
		const joined = status?.networks ?? [];
		const lans = Object.entries(links).map(([ name, link ]) => ({ name, ...link })).filter(isLan).map(({ name }) => name).sort();
		const exits = (networks) => [ ...new Set(networks.flatMap((one) => one.exits.map((exit) => exit.name))) ].sort();
		const map = new form.Map('gatewrt', _('GateWRT settings'),
			_('What the owner of this router allows and wants. The network\'s admin can\'t turn on what is off here.'));

		if (router.mayChange())
			addMissing(joined);

		const sections = uci.sections('gatewrt', 'network').map((section) => section['.name']);

		program(map);
		sections.forEach((section) => membership(map, section, exits(joined.filter(({ name }) => sectionOf(name) == section)), lans));
		scopes(map, sections.map(networkOf), exits(joined), lans);

		return map.render().then((node) => E('div', {}, [ ...faults(diag), node ]));
	}
});
