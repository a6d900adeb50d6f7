// Check of a prefix, so that a half-typed one is not sent. The coordinator decides. Pure.

/** Missing or wrong part of a prefix, in words; "" if there is none. */
export function whatIsWrong(text) {
  const [address, length, ...rest] = text.split("/");
  const bits = address.includes(":") ? bitsOf6(address) : bitsOf4(address);
  if (!bits || rest.length) return "Write it as 192.168.1.0/24 or fd00:1::/64.";
  if (!/^\d{1,3}$/.test(length ?? "")) return `How long is it? Such as ${address}/${bits.length === 32 ? 24 : 64}.`;
  if (Number(length) > bits.length) return `The length is 0 to ${bits.length}.`;
  if (bits.slice(Number(length)).includes("1")) return `${address} has bits set beyond /${length}: it is a host in a longer prefix.`;
  return "";
}

function bitsOf4(text) {
  const parts = text.split(".");
  const isSound = parts.length === 4 && parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) < 256);
  return isSound ? parts.map((part) => Number(part).toString(2).padStart(8, "0")).join("") : null;
}

function bitsOf6(text) {
  const halves = text.split("::");
  if (halves.length > 2) return null;
  const [head, tail] = halves.map((half) => (half ? half.split(":") : []));
  const missing = 8 - head.length - (tail?.length ?? 0);
  if (tail ? missing < 1 : missing !== 0) return null;
  const groups = [...head, ...Array(tail ? missing : 0).fill("0"), ...(tail ?? [])];
  const isSound = groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group));
  return isSound ? groups.map((group) => parseInt(group, 16).toString(2).padStart(16, "0")).join("") : null;
}
