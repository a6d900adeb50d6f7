//! An MQTT client whose every step waits for the broker's answer.

use crate::within;
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, Outgoing, Packet, Publish, QoS,
    SubscribeReasonCode, Transport,
};
use std::{collections::VecDeque, net::SocketAddr, time::Duration};
use tokio::{sync::mpsc, task::JoinHandle};

pub struct Client {
    mqtt: AsyncClient,
    packets: mpsc::UnboundedReceiver<Packet>,
    inbox: VecDeque<Publish>,
    polling: JoinHandle<Option<ConnectionError>>,
}

pub fn options(broker: SocketAddr, client_id: &str, transport: Transport) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, broker.ip().to_string(), broker.port());
    options.set_transport(transport).set_keep_alive(Duration::from_secs(60));
    options.set_max_packet_size(1 << 20, 1 << 20);
    options
}

impl Client {
    /// Returns once the broker has accepted, or with why not.
    pub async fn connect(options: MqttOptions) -> Result<Self, ConnectionError> {
        let (mqtt, mut events) = AsyncClient::new(options, 100);
        let first = within("an answer to CONNECT", events.poll()).await?;
        assert!(matches!(first, Event::Incoming(Packet::ConnAck(_))), "{first:?}");
        let (sender, packets) = mpsc::unbounded_channel();
        Ok(Self { mqtt, packets, inbox: VecDeque::new(), polling: tokio::spawn(poll(events, sender)) })
    }

    /// Set if the broker granted it.
    pub async fn subscribe(&mut self, filter: &str) -> bool {
        self.mqtt.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        let answer = |packet: &Packet| match packet {
            Packet::SubAck(ack) => Some(ack.return_codes.clone()),
            _ => None,
        };
        let codes = self.wait("SUBACK", answer).await;
        matches!(codes[..], [SubscribeReasonCode::Success(_)])
    }

    /// Returns once it is acknowledged, which says nothing of being accepted.
    pub async fn publish(&mut self, topic: &str, payload: &str, retain: bool) {
        self.mqtt.publish(topic, QoS::AtLeastOnce, retain, payload).await.unwrap();
        self.wait("PUBACK", |packet| matches!(packet, Packet::PubAck(_)).then_some(())).await;
    }

    /// Leaves it to the broker when to read it.
    pub async fn throw(&mut self, topic: &str, payload: &[u8]) {
        self.mqtt.publish(topic, QoS::AtLeastOnce, false, payload).await.unwrap();
    }

    pub async fn receive(&mut self) -> Publish {
        if let Some(publish) = self.inbox.pop_front() {
            return publish;
        }
        self.wait("a message", |packet| match packet {
            Packet::Publish(publish) => Some(publish.clone()),
            _ => None,
        })
        .await
    }

    /// Everything received before that message, in order.
    pub async fn until(&mut self, topic: &str, payload: &str) -> Vec<(String, String)> {
        let mut before = vec![];
        loop {
            let publish = self.receive().await;
            let message = (publish.topic, String::from_utf8(publish.payload.to_vec()).unwrap());
            if message.0 == topic && message.1 == payload {
                return before;
            }
            before.push(message);
        }
    }

    /// Goes without a word, as in a power cut: no DISCONNECT.
    pub async fn die(self) {
        self.polling.abort();
        let _ = self.polling.await;
    }

    /// Says DISCONNECT, then closes the connection.
    pub async fn leave(self) {
        self.mqtt.disconnect().await.unwrap();
        within("DISCONNECT to be sent", self.polling).await.unwrap();
    }

    /// Returns once the broker has cut it off.
    pub async fn ended(self) {
        let fault = within("the connection to end", self.polling).await.unwrap();
        assert!(fault.is_some(), "it didn't leave by itself");
    }

    pub fn is_alive(&self) -> bool {
        !self.polling.is_finished()
    }

    async fn wait<T>(&mut self, what: &str, wanted: impl Fn(&Packet) -> Option<T>) -> T {
        loop {
            let packet = within(what, self.packets.recv()).await;
            let packet = packet.unwrap_or_else(|| panic!("the connection ended before {what}"));
            if let Some(found) = wanted(&packet) {
                return found;
            }
            if let Packet::Publish(publish) = packet {
                self.inbox.push_back(publish);
            }
        }
    }
}

/// Until the connection fails, or the client has said goodbye.
async fn poll(mut events: EventLoop, packets: mpsc::UnboundedSender<Packet>) -> Option<ConnectionError> {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(packet)) => drop(packets.send(packet)),
            Ok(Event::Outgoing(Outgoing::Disconnect)) => return None,
            Ok(Event::Outgoing(_)) => {}
            Err(e) => return Some(e),
        }
    }
}
